// Package images builds the container images that the end-to-end tests run.
package images

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The images, by name. Two versions of the app are two different binaries, and say so in every answer.
const (
	Crank     = "crank:e2e"            // as the repository's Dockerfile says
	App       = "crank-e2e-app:v1"     // the app and the load generator, on top of Crank
	AppV2     = "crank-e2e-app:v2"     //
	Plain     = "crank-e2e-plain:v1"   // the app and the load generator, and no crank
	PlainV2   = "crank-e2e-plain:v2"   //
	Updater   = "crank-e2e-updater:v1" // the app and the load generator on Debian
	UpdaterV2 = "crank-e2e-updater:v2" //
)

// All is what Build can build, in an order in which each finds what it is built on.
var All = []string{Crank, App, AppV2, Plain, PlainV2, Updater, UpdaterV2}

//go:embed *.Dockerfile
var dockerfiles embed.FS

// Build builds images with the docker CLI, which finds an image that has not changed in its cache.
// The working directory is somewhere in the repository. What is built on Crank needs it first.
func Build(names ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := build(root, name); err != nil {
			return fmt.Errorf("cannot build the image %s: %w", name, err)
		}
	}
	return nil
}

// Root returns the root of the repository that the working directory is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "Dockerfile")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("cannot find the repository: start this inside of it")
}

func build(root, name string) error {
	if name == Crank {
		return docker(root, name)
	}
	kind, version, _ := strings.Cut(strings.TrimPrefix(name, "crank-e2e-"), ":")
	dockerfile, err := dockerfiles.ReadFile(kind + ".Dockerfile")
	if err != nil {
		return err
	}
	context, err := os.MkdirTemp("", "crank-e2e-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(context)
	if err := os.WriteFile(filepath.Join(context, "Dockerfile"), dockerfile, 0o644); err != nil {
		return err
	}
	if err := compile(root, context, "-X main.version="+version, "./test/app"); err != nil {
		return err
	}
	if err := compile(root, context, "", "./test/e2e/load"); err != nil {
		return err
	}
	return docker(context, name)
}

// compile builds a static program of the repository into the directory to.
func compile(root, to, ldflags, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w "+ldflags, "-o", to+string(filepath.Separator), pkg)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	return run(cmd)
}

// docker builds with the network of the machine, where the modules come from, and with the classic
// builder, which every client can.
func docker(context, name string) error {
	cmd := exec.Command("docker", "build", "--quiet", "--network=host", "--label=crank-e2e=1", "--tag="+name, context)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	return run(cmd)
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
