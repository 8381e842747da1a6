@echo off
rem vcvars.bat VCVARSALL TOOLSET: prints the environment that Microsoft's script leaves behind, after a line of its own.
rem TOOLSET comes alone, since an equals sign would split an argument of a batch file in two.
chcp 65001 >nul
call "%~1" x64 -vcvars_ver=%~2
if errorlevel 1 exit /b 1
echo === environment ===
set
