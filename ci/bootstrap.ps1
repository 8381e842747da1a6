# Makes a virtual environment with nox in it, on a machine that has nothing but Python 3.11 or later.
#   ci\bootstrap.ps1 FOLDER
# $env:PYTHON names another interpreter than the newest that the launcher (py) knows.
param([Parameter(Mandatory = $true)][string]$Folder)
$ErrorActionPreference = 'Stop'

[string]$python = 'py'
[string[]]$first = @('-3')
if ($env:PYTHON) {
    $python = $env:PYTHON
    $first = @()
}
& $python @first -c 'import sys; sys.exit(sys.version_info < (3, 11))'
if ($LASTEXITCODE -ne 0) {
    throw 'Python 3.11 or later is needed: winget install Python.Python.3.12, or name one in $env:PYTHON'
}
& $python @first -m venv $Folder
if ($LASTEXITCODE -ne 0) { throw "no virtual environment could be made in $Folder" }
& (Join-Path $Folder 'Scripts\python.exe') -m pip install --quiet --disable-pip-version-check nox
if ($LASTEXITCODE -ne 0) { throw 'nox could not be installed' }
