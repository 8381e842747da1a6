# Makes a virtual environment with nox, on a machine that has only Python 3.11 or later.
#   ci\bootstrap.ps1 FOLDER
# $env:PYTHON selects another interpreter than the newest one of the launcher (py).
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
    throw 'Python 3.11 or later is needed: winget install Python.Python.3.12, or select one with $env:PYTHON'
}
& $python @first -m venv $Folder
if ($LASTEXITCODE -ne 0) { throw "the virtual environment could not be made in $Folder" }
& (Join-Path $Folder 'Scripts\python.exe') -m pip install --quiet --disable-pip-version-check nox
if ($LASTEXITCODE -ne 0) { throw 'nox could not be installed' }
