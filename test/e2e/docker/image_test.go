//go:build e2e

package docker

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crankctl/crank/test/e2e/images"
)

// config is what an image says about how it is to be run.
type config struct {
	Architecture string
	Size         int64
	Config       struct {
		User                 string
		Entrypoint, Cmd, Env []string
		Labels               map[string]string
		Healthcheck          struct{ Test []string }
	}
}

func configOf(t *testing.T, image string) config {
	t.Helper()
	var list []config
	if err := json.Unmarshal([]byte(docker(t, "image", "inspect", image)), &list); err != nil || len(list) != 1 {
		t.Fatalf("docker image inspect %s: %d images, %v", image, len(list), err)
	}
	return list[0]
}

// file is one in an image.
type file struct {
	tar.Header
	content []byte
}

// filesOf returns what is in an image, by path. No program in it is run.
func filesOf(t *testing.T, image string) map[string]file {
	t.Helper()
	id := docker(t, "create", "--label", label, "--network", "none", image)
	id = id[strings.LastIndex(id, "\n")+1:] // after a warning about another architecture
	defer docker(t, "rm", id)
	path := filepath.Join(t.TempDir(), "image.tar")
	docker(t, "export", "--output", path, id)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string]file{}
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(header.Name, "/")] = file{*header, content}
	}
}

// checkImage checks an image of crank's own, however it was built.
func checkImage(t *testing.T, image, architecture string, machine elf.Machine) {
	t.Helper()
	c := configOf(t, image)
	if c.Architecture != architecture {
		t.Errorf("architecture %s, want %s", c.Architecture, architecture)
	}
	if c.Config.User != "65532:65532" {
		t.Errorf("user %q", c.Config.User)
	}
	if want := []string{"/crank", "--"}; !slices.Equal(c.Config.Entrypoint, want) || len(c.Config.Cmd) != 0 {
		t.Errorf("entrypoint %q, command %q", c.Config.Entrypoint, c.Config.Cmd)
	}
	if want := []string{"CMD", "/crankctl", "ready"}; !slices.Equal(c.Config.Healthcheck.Test, want) {
		t.Errorf("health check %q, want %q", c.Config.Healthcheck.Test, want)
	}
	for name, want := range map[string]string{"title": "crank", "licenses": "MIT", "source": "https://github.com/crankctl/crank", "version": "devel"} {
		if got := c.Config.Labels["org.opencontainers.image."+name]; got != want {
			t.Errorf("label %s is %q, want %q", name, got, want)
		}
	}

	files := filesOf(t, image)
	for _, name := range []string{"crank", "crankctl"} {
		checkStatic(t, name, files[name], machine)
	}
	if link := files["crankx"]; link.Typeflag != tar.TypeSymlink || link.Linkname != "crankctl" {
		t.Errorf("crankx is %q, a link to %q", link.Typeflag, link.Linkname)
	}
	if dir := files["run/crank"]; dir.Typeflag != tar.TypeDir || dir.Uid != 65532 || dir.Gid != 65532 {
		t.Errorf("run/crank is %q of %d:%d", dir.Typeflag, dir.Uid, dir.Gid)
	}
	if users := string(files["etc/passwd"].content); !strings.HasPrefix(users, "crank:x:65532:65532:") {
		t.Errorf("etc/passwd is %q", users)
	}
}

// checkStatic checks a program that anybody may run, that nobody but root can change, and that needs
// no other file.
func checkStatic(t *testing.T, name string, f file, machine elf.Machine) {
	t.Helper()
	if f.Typeflag != tar.TypeReg || f.Mode&0o777 != 0o755 || f.Uid != 0 {
		t.Errorf("%s: type %q, mode %#o, user %d", name, f.Typeflag, f.Mode, f.Uid)
	}
	program, err := elf.NewFile(bytes.NewReader(f.content))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if program.Machine != machine {
		t.Errorf("%s is for %v, want %v", name, program.Machine, machine)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s is not static", name)
		}
	}
}

// native is the machine that this test runs on, as the engine and ELF call it.
func native(t *testing.T) (string, elf.Machine) {
	t.Helper()
	arch := docker(t, "version", "--format", "{{.Server.Arch}}")
	machine, ok := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM,
		"ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390, "riscv64": elf.EM_RISCV}[arch]
	if !ok {
		t.Fatalf("the engine runs on %s", arch)
	}
	return arch, machine
}

// maxImage is more than enough for two static programs.
const maxImage = 25 << 20

// TestImage: crank's own image is what the Dockerfile promises.
func TestImage(t *testing.T) {
	arch, machine := native(t)
	checkImage(t, images.Crank, arch, machine)
	size := configOf(t, images.Crank).Size
	fmt.Printf("image crank: %.1f MB\n", float64(size)/1e6)
	if size > maxImage {
		t.Errorf("the image has %d bytes, more than %d", size, maxImage)
	}
	// The entrypoint's -- makes everything a command.
	run := []string{"run", "--rm", "--label", label, "--network", "none"}
	if _, code, err := command("docker", append(run, images.Crank, "-version")...); err != nil || code != 127 {
		t.Errorf("-version as a command: exit code %d, %v", code, err)
	}
	out, code, err := command("docker", append(run, "--entrypoint", "/crank", images.Crank, "-version")...)
	if err != nil || code != 0 || !strings.HasPrefix(out.stdout, "crank ") {
		t.Errorf("crank -version: exit code %d, %v, %s%s", code, err, out.stdout, out.stderr)
	}
}

// TestOtherBuilders: BuildKit and buildah build the same image as docker's classic builder, and each of
// them compiles for another architecture without emulating it.
func TestOtherBuilders(t *testing.T) {
	root, err := images.Root()
	if err != nil {
		t.Fatal(err)
	}
	arch, _ := native(t)
	other, otherMachine := "arm64", elf.EM_AARCH64
	if arch == other {
		other, otherMachine = "amd64", elf.EM_X86_64
	}
	build := func(t *testing.T, env []string, program, verb string, args ...string) {
		t.Helper()
		args = append(append([]string{verb, "--network", "host", "--label", label}, args...), root)
		if out, code, err := commandEnv(env, program, args...); err != nil || code != 0 {
			t.Fatalf("%s %s: exit code %d, %v\n%s%s", program, strings.Join(args, " "), code, err, out.stdout, out.stderr)
		}
	}
	// The classic builder has the programs compiled for another architecture; it cannot say so in the image.
	t.Run("classic "+other, func(t *testing.T) {
		build(t, []string{"DOCKER_BUILDKIT=0"}, "docker", "build", "--tag", "crank-e2e-classic",
			"--build-arg", "BUILDPLATFORM=linux/"+arch, "--build-arg", "GOARCH="+other)
		checkImage(t, "crank-e2e-classic", arch, otherMachine)
	})
	t.Run("BuildKit "+other, func(t *testing.T) {
		client := buildKitClient()
		if client == "" {
			fmt.Println("NOT TESTED: no docker client here can use BuildKit")
			t.Skip("docker buildx is not installed, and this client needs it")
		}
		build(t, []string{"DOCKER_BUILDKIT=1"}, client, "build", "--tag", "crank-e2e-buildkit", "--platform", "linux/"+other)
		checkImage(t, "crank-e2e-buildkit", other, otherMachine)
	})
	t.Run("buildah "+other, func(t *testing.T) {
		if _, err := exec.LookPath("buildah"); err != nil {
			fmt.Println("NOT TESTED: buildah is not installed")
			t.Skip(err)
		}
		dir := t.TempDir()
		env := []string{"STORAGE_DRIVER=vfs"}
		buildah := func(args ...string) {
			t.Helper()
			args = append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run")}, args...)
			if out, code, err := commandEnv(env, "buildah", args...); err != nil || code != 0 {
				t.Fatalf("buildah %s: exit code %d, %v\n%s%s", strings.Join(args, " "), code, err, out.stdout, out.stderr)
			}
		}
		buildah("pull", "docker-daemon:golang:1.26-bookworm")
		buildah("bud", "--format", "docker", "--isolation", "chroot", "--network", "host", "--pull-never", "--label", label,
			"--tag", "crank-e2e-buildah", "--platform", "linux/"+other, "--build-arg", "BUILDPLATFORM=linux/"+arch, root)
		buildah("push", "crank-e2e-buildah", "docker-daemon:crank-e2e-buildah:latest")
		checkImage(t, "crank-e2e-buildah", other, otherMachine)
	})
}

// buildKitClient returns a docker client that uses BuildKit: one that has it built in, as up to
// version 20.10, or one with the buildx plugin. Others quietly fall back to the classic builder.
func buildKitClient() string {
	for _, client := range []string{"docker", "/usr/bin/docker"} {
		if _, code, err := command(client, "buildx", "version"); err == nil && code == 0 {
			return client
		}
		out, code, err := command(client, "version", "--format", "{{.Client.Version}}")
		if major, _, _ := strings.Cut(out.stdout, "."); err == nil && code == 0 && (major == "20" || major == "19" || major == "18") {
			return client
		}
	}
	return ""
}
