// What NVIDIA's import libraries need of Visual C++: the check of the stack, which is always passed here.
unsigned long long __security_cookie = 0x2b992ddfa232;

void __security_check_cookie(unsigned long long cookie) {
    (void) cookie;
}

int __GSHandlerCheck(void) {
    return 1;
}
