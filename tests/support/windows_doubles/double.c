/*
 * Plays cl, link, lib, rc, mt, vswhere and icacls, by the name that it is called by. Nothing in here is Microsoft's.
 *
 * cl, link and lib hand their command line to clang, which understands both programs' options: clang\zig.exe next to this
 * file. It is a program of Windows, too, so that a build that is stopped has only processes of Windows to stop.
 */
#include <windows.h>
#include <aclapi.h>
#include <sddl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define LENGTH 32768

static wchar_t *after_the_first(wchar_t *line) {
    const int quoted = *line == L'"';
    for (line += quoted; *line && *line != (quoted ? L'"' : L' '); line++) {}
    return line + (*line == L'"');
}

static int call(const wchar_t *program, const wchar_t *options, const wchar_t *rest) {
    static wchar_t line[LENGTH];
    STARTUPINFOW how = {.cb = sizeof how};
    PROCESS_INFORMATION made;
    DWORD status = 1;
    if (_snwprintf(line, LENGTH, L"\"%ls\" %ls %ls", program, options, rest) < 0) {
        fputs("the command line is too long\n", stderr);
        return 1;
    }
    if (!CreateProcessW(program, line, NULL, NULL, TRUE, 0, NULL, NULL, &how, &made)) {
        fprintf(stderr, "%ls does not start: error %lu\n", program, GetLastError());
        return 1;
    }
    WaitForSingleObject(made.hProcess, INFINITE);
    GetExitCodeProcess(made.hProcess, &status);
    return (int) status;
}

/* Take cl's /pathmap:FROM=TO out of the command line, and give it to clang by clang's name. */
static void move_path_map(wchar_t *options, wchar_t *rest) {
    wchar_t *map = wcsstr(rest, L"/pathmap:");
    if (map != NULL) {
        wchar_t *value = map + wcslen(L"/pathmap:"), *end = value + wcscspn(value, L" \"");
        _snwprintf(options + wcslen(options), 1024, L" /clang:-ffile-prefix-map=%.*ls", (int) (end - value), value);
        if (map > rest && map[-1] == L'"') {
            map--, end++;
        }
        wmemmove(map, end, wcslen(end) + 1);
    }
}

/*
 * Put the text of nvcc's response file into the command line, behind the other options: its /link goes to the end of the
 * file for cl, and to the end of the line for clang.
 */
static wchar_t *expand_response_file(wchar_t *rest) {
    static wchar_t line[LENGTH], name[MAX_PATH];
    static char text[LENGTH];
    wchar_t *file = rest + wcsspn(rest, L" "), *end;
    size_t length, used;
    FILE *opened;
    if (*file != L'@') {
        return rest;
    }
    end = after_the_first(++file);
    _snwprintf(name, MAX_PATH - 1, L"%.*ls", (int) (end - file) - 2 * (*file == L'"'), file + (*file == L'"'));
    if ((opened = _wfopen(name, L"rb")) == NULL) {
        return rest;
    }
    length = fread(text, 1, sizeof text - 1, opened);
    fclose(opened);
    used = (size_t) _snwprintf(line, LENGTH, L"%ls ", end);
    MultiByteToWideChar(CP_UTF8, 0, text, (int) length + 1, line + used, (int) (LENGTH - used));
    for (end = line; *end; end++) {
        if (*end == L'\r' || *end == L'\n') {
            *end = L' ';
        }
    }
    return line;
}

static int print_file(const wchar_t *path) {
    char buffer[4096];
    size_t length;
    FILE *file = _wfopen(path, L"rb");
    if (file == NULL) {
        return 1;
    }
    while ((length = fread(buffer, 1, sizeof buffer, file)) > 0) {
        fwrite(buffer, 1, length, stdout);
    }
    return fclose(file);
}

/* icacls PATH /save FILE, and icacls PATH /inheritance:r /grant:r *SID:(OI)(CI)F ...: what the pipeline asks for. */
static int access_list(int count, wchar_t **arguments) {
    wchar_t *text, list[4096] = L"D:P";
    const wchar_t *name, *slash = wcsrchr(arguments[1], L'\\');
    PSECURITY_DESCRIPTOR descriptor;
    PACL acl;
    BOOL present, defaulted;
    FILE *file;
    int i;
    for (i = 2; i < count; i++) {
        if (!wcscmp(arguments[i], L"/save") && i + 1 < count) {
            if (GetNamedSecurityInfoW(arguments[1], SE_FILE_OBJECT, DACL_SECURITY_INFORMATION, 0, 0, 0, 0, &descriptor) ||
                !ConvertSecurityDescriptorToStringSecurityDescriptorW(descriptor, 1, DACL_SECURITY_INFORMATION, &text, 0)) {
                return 2;
            }
            if ((file = _wfopen(arguments[i + 1], L"wb")) == NULL) {
                return 3;
            }
            name = slash != NULL ? slash + 1 : arguments[1];
            for (const wchar_t *part = name; *part; part++) fwrite(part, 2, 1, file);
            fwrite(L"\r\n", 2, 2, file);
            fwrite(text, 2, wcslen(text), file);
            fwrite(L"\r\n", 2, 2, file);
            return fclose(file);
        }
        if (*arguments[i] == L'*') {
            const int length = (int) wcscspn(arguments[i] + 1, L":");
            _snwprintf(list + wcslen(list), 256, L"(A;OICI;FA;;;%.*ls)", length, arguments[i] + 1);
        }
    }
    if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(list, 1, &descriptor, NULL) ||
        !GetSecurityDescriptorDacl(descriptor, &present, &acl, &defaulted)) {
        return 4;
    }
    return (int) SetNamedSecurityInfoW(
        arguments[1], SE_FILE_OBJECT, DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION, 0, 0, acl, 0);
}

/* rc /fo RES RC: CMake has one made of a manifest for each program that it tries. A file without resources does. */
static int compile_resources(int count, wchar_t **arguments) {
    static const unsigned char nothing[32] = {[4] = 32, [8] = 255, [9] = 255, [12] = 255, [13] = 255};
    FILE *file = NULL;
    int i;
    for (i = 1; i + 1 < count && file == NULL; i++) {
        file = _wcsicmp(arguments[i], L"/fo") ? NULL : _wfopen(arguments[i + 1], L"wb");
    }
    return file == NULL || fwrite(nothing, sizeof nothing, 1, file) != 1 || fclose(file);
}

int wmain(int count, wchar_t **arguments) {
    static wchar_t own[LENGTH], clang[LENGTH], options[LENGTH];
    wchar_t *rest = after_the_first(GetCommandLineW());
    wchar_t *name;
    GetModuleFileNameW(NULL, own, LENGTH);
    name = wcsrchr(own, L'\\') + 1;
    _snwprintf(clang, LENGTH, L"%.*lsclang\\zig.exe", (int) (name - own), own);
    if (!_wcsicmp(name, L"cl.exe")) {
        if (count == 1) {
            fputs("A test double, not Microsoft's: C/C++ Compiler Version 19.44.35219 for x64\n", stderr);
            return 0;
        }
        wcscpy(options, L"clang --driver-mode=cl --target=x86_64-pc-windows-msvc19.44.35219 /clang:-U__clang__ -w"
                        L" -Wno-unknown-argument -Wno-unused-command-line-argument /Zc:threadSafeInit-"
                        /* CUDA registers its code by a static variable that nothing names, and cl keeps */
                        L" /clang:-fkeep-persistent-storage-variables");
        rest = expand_response_file(rest);
        move_path_map(options, rest);
        return call(clang, options, rest);
    }
    if (!_wcsicmp(name, L"link.exe")) {
        if (count == 1) {
            puts("A test double, not Microsoft's: Incremental Linker Version 14.44.35219.0");
            return 0;
        }
        return call(clang, L"lld-link", rest);
    }
    if (!_wcsicmp(name, L"lib.exe")) {
        return call(clang, L"lib", rest);
    }
    if (!_wcsicmp(name, L"mt.exe")) {
        return 0; /* nothing in the miniature needs a manifest */
    }
    if (!_wcsicmp(name, L"rc.exe")) {
        return compile_resources(count, arguments);
    }
    if (!_wcsicmp(name, L"icacls.exe") && count > 2) {
        return access_list(count, arguments);
    }
    if (!_wcsicmp(name, L"vswhere.exe")) {
        wcscpy(name, L"vswhere.json");
        return print_file(own);
    }
    fprintf(stderr, "%ls is not played\n", name);
    return 1;
}
