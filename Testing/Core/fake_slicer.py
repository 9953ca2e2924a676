"""A stand-in for the CMake package of 3D Slicer: records what it is asked for and refuses missing files."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONFIG = """\
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Generate.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/CPack.cmake")
"""

USE = """\
include(CTest)
file(WRITE "${CMAKE_BINARY_DIR}/record.txt" "")

function(_record kind)
  list(JOIN ARGN "\\",\\"" values)
  file(APPEND "${CMAKE_BINARY_DIR}/record.txt" "[\\"${kind}\\",\\"${values}\\"]\\n")
endfunction()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(M "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(M_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords: ${M_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT DEFINED M_NAME)
    message(FATAL_ERROR "NAME is mandatory")
  endif()
  foreach(file IN LISTS M_SCRIPTS M_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "${M_NAME} lists a file that does not exist: ${file}")
    endif()
  endforeach()
  _record(module ${M_NAME} ${M_WITH_SUBDIR})
  _record(scripts ${M_NAME} ${M_SCRIPTS})
  _record(resources ${M_NAME} ${M_RESOURCES})
endmacro()

function(slicer_add_python_unittest)
  cmake_parse_arguments(T "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(T_UNPARSED_ARGUMENTS OR NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${T_SCRIPT}")
    message(FATAL_ERROR "Not a test script: ${ARGN}")
  endif()
  _record(unittest ${T_SCRIPT})
endfunction()
"""

GENERATE = """\
foreach(name HOMEPAGE CONTRIBUTORS DESCRIPTION DEPENDS CATEGORY)
  if("${EXTENSION_${name}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${name} is empty")
  endif()
  _record(extension ${name} "${EXTENSION_${name}}")
endforeach()
"""


@dataclass(frozen=True)
class Configured:
    """What the project asked of the stand-in: rows (kind, values...) in order, and the exit of cmake."""

    rows: list[list[str]]
    returncode: int
    output: str

    def values(self, kind: str, name: str) -> list[str]:
        """Values recorded for `name` under `kind`."""
        return [value for row in self.rows if row[:2] == [kind, name] for value in row[2:] if value]


def configure(cmake: str, source: Path, work: Path, *options: str) -> Configured:
    """Configure `source` with the real cmake against the stand-in, in the empty folder `work`."""
    package, build = work / "slicer", work / "build"
    package.mkdir(parents=True)
    (package / "SlicerConfig.cmake").write_text(CONFIG)
    (package / "UseSlicer.cmake").write_text(USE)
    (package / "Generate.cmake").write_text(GENERATE)
    (package / "CPack.cmake").write_text("_record(cpack done)\n")
    command = [cmake, "-S", str(source), "-B", str(build), f"-DSlicer_DIR={package}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    record = build / "record.txt"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    return Configured(rows, done.returncode, done.stdout + done.stderr)
