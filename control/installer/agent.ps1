# Installs or upgrades the LOX Backup agent on Windows. Served by a LOX server, and filled in by it.
# UNTESTED: this script was never run on Windows. It does what agent.sh does for Linux, with less.
param(
    [Parameter(Mandatory = $true)][string]$ApiUrl,
    [Parameter(Mandatory = $true)][string]$AgentUuid,
    [string]$Token = $env:LOX_TOKEN,
    [switch]$NoStart,
    [switch]$DryRun
)

function Install-LoxAgent {
    $ErrorActionPreference = 'Stop'
    $server = '@SERVER_URL@'
    $version = '@VERSION@'
    $manifestHash = '@MANIFEST_SHA256@'
    $authority = '@CA_CERTIFICATE@'
    $program = Join-Path $env:ProgramFiles "LOX Agent\versions\$version"
    $data = Join-Path $env:ProgramData 'LOX Agent'
    $config = Join-Path $data 'config.yaml'
    if (-not $manifestHash) { throw 'the server offers no packages yet: run lox-server wheels there' }
    $python = (Get-Command python -ErrorAction SilentlyContinue).Source
    if (-not $python) { throw 'Python 3.11 or newer is missing' }
    & $python -c 'import sys; sys.exit(sys.version_info < (3, 11))'
    if ($LASTEXITCODE) { throw 'Python 3.11 or newer is missing' }
    if ($DryRun) { Write-Output "would install $version into $program and write $config"; return }

    $work = Join-Path ([IO.Path]::GetTempPath()) ([Guid]::NewGuid())
    New-Item -ItemType Directory -Path $work | Out-Null
    try {
        $trust = @()
        if ($authority) {
            Set-Content -Path (Join-Path $work 'ca.pem') -Value $authority -Encoding ascii
            $trust = @('--cacert', (Join-Path $work 'ca.pem'))
        }
        function Get-LoxFile($name, $hash) {
            $file = Join-Path $work $name
            & curl.exe --fail --silent --show-error @trust --output $file "$server/files/$name"
            if ($LASTEXITCODE) { throw "cannot download $name" }
            if ((Get-FileHash $file).Hash -ne $hash) { throw "$name is not what this server offers" }
        }
        Get-LoxFile 'manifest.txt' $manifestHash
        foreach ($line in Get-Content (Join-Path $work 'manifest.txt')) {
            $kind, $hash, $size, $name = $line -split ' '
            if ($kind -eq 'file' -and $name -match '(-any|-win_amd64)\.whl$') { Get-LoxFile $name $hash }
        }
        & $python -m venv $program
        & "$program\Scripts\python.exe" -m pip install --quiet --no-index --find-links $work 'lox-backup[agent]'
        if ($LASTEXITCODE) { throw 'the packages could not be installed' }
        New-Item -ItemType Directory -Force -Path $data | Out-Null
        & icacls $data /inheritance:r /grant 'SYSTEM:(OI)(CI)F' 'Administrators:(OI)(CI)F' | Out-Null
        if ($authority) { Copy-Item (Join-Path $work 'ca.pem') (Join-Path $data 'ca.pem') -Force }
        if (-not (Test-Path $config)) {
            $lines = @("api_url: $ApiUrl", "agent_uuid: $AgentUuid", "registration_token: $Token")
            if ($authority) { $lines += "ca_file: '$data\ca.pem'" }
            Set-Content -Path $config -Value $lines -Encoding ascii
        }
    } finally {
        Remove-Item -Recurse -Force $work
    }
    & "$program\Scripts\lox-agent.exe" service install
    if (-not $NoStart) { Start-Service 'LOX Backup Agent' }
}

Install-LoxAgent
