"""The PTX behind a shard: nvcc's own commands for a file of the build, run as far as the PTX, then ptxas.

nvcc writes PTX between the front end and ptxas, and deletes it. ``nvcc --dryrun`` lists its commands with all options;
they are those of the build, because they come from its ``compile_commands.json``. ``nvcc -ptx`` gives other names to
functions with internal linkage: it leaves out the front end of the host, which makes the name of the module.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from build_config.errors import CommandError, ValidationError
from build_config.model import CudaArch
from build_config.system.files import file_sha256, listing_sha256
from build_config.system.processes import Command, run

SECONDS_ALLOWED = 1800.0
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PtxFile:
    """PTX of a file of the build, and the SHA-256 of what ptxas makes of it with the build's options."""

    source: str
    path: Path
    cubin: str


@dataclass(slots=True, kw_only=True)
class PtxFiles:
    """The PTX of a shard for one architecture, made when it is needed and kept in ``folder`` by digest.

    ``build`` is the build tree of the shard's unit, ``commands`` its compilations of CUDA files.
    """

    build: Path
    arch: CudaArch
    folder: Path
    log: Path | None = None
    commands: list[dict[str, str]] = field(default_factory=list)
    _inputs: str = ""

    def __post_init__(self) -> None:
        """Read the commands of the build. Raises ``ValidationError`` if there are none."""
        path = self.build / "compile_commands.json"
        try:
            commands = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            message = f"{path} is missing: the PTX of a shard is made with the commands of its build"
            raise ValidationError(message, remedy="build the wheel here first") from error
        self.commands = [command for command in commands if command["file"].endswith(".cu")]
        if not self.commands:
            raise ValidationError(f"{path} contains no CUDA file")
        self.folder.mkdir(parents=True, exist_ok=True)
        ggml = self._ggml
        paths = sorted(path for path in ggml.rglob("*") if path.is_file())
        self._inputs = listing_sha256((str(path.relative_to(ggml)), file_sha256(path)) for path in paths)

    @property
    def _ggml(self) -> Path:
        """The folder with everything that these files include, except the toolkit: that of the backends' sources."""
        shallowest = min((Path(command["file"]) for command in self.commands), key=lambda path: len(path.parts))
        return shallowest.parent.parent.parent

    @property
    def digest(self) -> str:
        """The digest of all inputs: sources, headers, commands."""
        return hashlib.sha256("\0".join((self._inputs, json.dumps(self.commands))).encode()).hexdigest()

    @property
    def sources(self) -> tuple[str, ...]:
        """The compiled files, in the order in which they are linked."""
        return tuple(Path(command["file"]).name for command in self.commands)

    def make(self, number: int) -> PtxFile:
        """Make the PTX of a compiled file, by its place in ``sources``.

        Raises ``ValidationError`` if nvcc does not list the commands or one of them fails.
        """
        compiled = self.commands[number]
        argv = _without_launcher(shlex.split(compiled["command"]))
        key = hashlib.sha256("\0".join((self._inputs, self.arch.name, *argv)).encode()).hexdigest()
        source = Path(compiled["file"]).name
        path, facts = self.folder / f"{key[:32]}.ptx", self.folder / f"{key[:32]}.json"
        if not facts.is_file() or not path.is_file():
            with tempfile.TemporaryDirectory(prefix="ptx-", dir=self.folder) as name:
                try:
                    ptx, cubin = self._compile(argv, Path(compiled["directory"]), Path(name))
                except CommandError as error:
                    raise ValidationError(f"there is no PTX of {source}: {error.message}", log=self.log) from error
                ptx.replace(path)
                facts.write_text(json.dumps({"source": source, "cubin": file_sha256(cubin)}), encoding="utf-8")
        return PtxFile(source=source, path=path, cubin=json.loads(facts.read_text(encoding="utf-8"))["cubin"])

    def _compile(self, argv: list[str], directory: Path, folder: Path) -> tuple[Path, Path]:
        """Run nvcc's commands up to this architecture's ptxas; return the PTX and the cubin."""
        listed = run(
            Command(argv=(*argv, "--dryrun", "--keep", "--keep-dir", str(folder)), cwd=directory, log=self.log),
            timeout=SECONDS_ALLOWED,
        )
        variables: dict[str, str] = {}
        for line in listed.output.splitlines():
            text = line.removeprefix("#$ ")
            if match := _VARIABLE.fullmatch(text):
                variables[match[1]] = match[2]
                continue
            command = _expanded(text, variables)
            if not self._is_needed(command):
                continue
            path = os.pathsep.join([variables["PATH"], os.environ.get("PATH", "")])
            run(Command(argv=command, cwd=directory, changes={"PATH": path}, log=self.log), timeout=SECONDS_ALLOWED)
            if Path(command[0]).name == "ptxas":
                inputs = [Path(each) for each in command if each.endswith(".ptx")]
                return directory / inputs[0], directory / command[command.index("-o") + 1]
        raise ValidationError(f"nvcc lists no command that assembles PTX for {self.arch}", log=self.log)

    def _is_needed(self, command: tuple[str, ...]) -> bool:
        """Whether a command of nvcc leads to this architecture's cubin."""
        program = Path(command[0]).name
        if program in {"cicc", "ptxas"}:
            names = {self.arch.name, self.arch.name.replace("sm_", "compute_")}
            return bool(names & {part.removeprefix("-arch=") for part in command})
        return program == "cudafe++" or "-E" in command


def _without_launcher(argv: list[str]) -> list[str]:
    """A compile command from nvcc on: a launcher may stand in front of it."""
    at = next((place for place, part in enumerate(argv) if Path(part).name.partition(".")[0] == "nvcc"), 0)
    return argv[at:]


def _expanded(text: str, variables: dict[str, str]) -> tuple[str, ...]:
    """A command of nvcc's list, which is written for a shell: variables that it set before, quotes."""
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(f"${name}", variables[name])
    return tuple(shlex.split(text))
