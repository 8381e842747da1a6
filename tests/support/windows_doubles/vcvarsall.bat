@echo off
rem A test double, not Microsoft's. It knows one toolset, and sets the variables that the real script sets for x64.
rem An equals sign separates arguments: -vcvars_ver=14.44.35207 comes as two.
set "TOOLSET=14.44.35207"
if not "%~1 %~2 %~3"=="x64 -vcvars_ver %TOOLSET%" (
    echo [ERROR:vcvarsall.bat] A test double: only x64 -vcvars_ver=%TOOLSET%, not %*
    exit /b 1
)
for %%I in ("%~dp0..\..\..") do set "VSINSTALLDIR=%%~fI\"
set "VCINSTALLDIR=%VSINSTALLDIR%VC\"
set "VCToolsInstallDir=%VCINSTALLDIR%Tools\MSVC\%TOOLSET%\"
set "VCToolsRedistDir=%VCINSTALLDIR%Redist\MSVC\14.44.35112\"
set "VCToolsVersion=%TOOLSET%"
set "VSCMD_VER=17.14.28"
set "VSCMD_ARG_TGT_ARCH=x64"
set "WindowsSDKVersion=10.0.26100.0\"
set "UCRTVersion=10.0.26100.0"
set "INCLUDE=%VCToolsInstallDir%include"
set "LIB=%VCToolsInstallDir%lib\x64"
set "PATH=%VCToolsInstallDir%bin\Hostx64\x64;%PATH%"
set "TOOLSET="
exit /b 0
