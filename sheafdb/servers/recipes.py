"""Which servers there are, their pinned versions, and how each is made from packages.

A recipe leaves a complete server in the folder it is given. Go checks what it downloads against its
checksum database, Maven (``-C``) against the published checksums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Run = Callable[..., None]
"""``run(*command, cwd, env)``: runs a build step, and raises with the end of its output if it fails."""

KAFKA_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sheafdb</groupId>
  <artifactId>kafka-server</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

# `go install` refuses etcd, because its go.mod has replace lines: so it is a library of this module.
ETCD_MODULE = "module etcd\n\ngo 1.24.0\n\nrequire go.etcd.io/etcd/server/v3 v{version}\n"
ETCD_MAIN = """\
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""

SMALL = ("-trimpath", "-ldflags=-s -w")


@dataclass(frozen=True, slots=True)
class Recipe:
    """version: as its packages spell it; part of the folder's name. tools: what must be on the PATH
    to build it. takes: how long on two cores, for people who wait."""

    version: str
    tools: tuple[str, ...]
    takes: str
    build: Callable[["Recipe", Path, Run], None]


def _kafka(recipe: Recipe, folder: Path, run: Run) -> None:
    (folder / "pom.xml").write_text(KAFKA_POM.format(version=recipe.version))
    run("mvn", "-q", "-B", "-C", MAVEN_COPY, f"-DoutputDirectory={folder / 'libs'}", cwd=folder)


def _etcd(recipe: Recipe, folder: Path, run: Run) -> None:
    (folder / "go.mod").write_text(ETCD_MODULE.format(version=recipe.version))
    (folder / "main.go").write_text(ETCD_MAIN)
    run("go", "mod", "tidy", cwd=folder)
    run("go", "build", *SMALL, "-o", str(folder / "etcd"), ".", cwd=folder)


def _minio(recipe: Recipe, folder: Path, run: Run) -> None:
    _go_install(f"github.com/minio/minio@{recipe.version}", folder, run)


def _toxiproxy(recipe: Recipe, folder: Path, run: Run) -> None:
    _go_install(f"github.com/Shopify/toxiproxy/v2/cmd/server@{recipe.version}", folder, run)
    (folder / "server").rename(folder / "toxiproxy")


def _go_install(package: str, folder: Path, run: Run) -> None:
    run("go", "install", *SMALL, package, cwd=folder, env={"GOBIN": str(folder)})


RECIPES: dict[str, Recipe] = {
    "kafka": Recipe("4.1.0", ("java", "mvn"), "half a minute", _kafka),
    "etcd": Recipe("3.6.5", ("go",), "half a minute", _etcd),
    "toxiproxy": Recipe("v2.5.0", ("go",), "a quarter of a minute", _toxiproxy),
    "minio": Recipe("v0.0.0-20260212201848-7aac2a2c5b7c", ("go",), "three minutes", _minio),
}
"""The quick ones first."""
