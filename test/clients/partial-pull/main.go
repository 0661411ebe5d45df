// Pulls and pushes images by the library of podman and buildah, in a version that has partial pulls.
//
//	partial-pull push LAYOUT IMAGE FOLDER   pushes an OCI layout with layers of zstd:chunked
//	partial-pull pull IMAGE FOLDER          pulls it into a store in the folder, and asks for what is missing there
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/signature"
	istorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
)

func main() {
	if reexec.Init() {
		return
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command, from, to string) error {
	policy := &signature.Policy{Default: []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()}}
	trust, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	// registry has the login and the certificate that REGISTRY_AUTH_FILE and CERT_DIR name.
	registry := &types.SystemContext{AuthFilePath: os.Getenv("REGISTRY_AUTH_FILE"), DockerCertPath: os.Getenv("CERT_DIR")}
	if os.Getenv("CERT_DIR") == "" {
		registry.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	}
	options := &copy.Options{ReportWriter: os.Stdout, SourceCtx: registry, DestinationCtx: registry}
	var source, destination types.ImageReference
	switch command {
	case "push":
		source, err = layout.ParseReference(from)
		if err != nil {
			return err
		}
		destination, err = docker.ParseReference("//" + to)
		if err != nil {
			return err
		}
		registry.CompressionFormat = &compression.ZstdChunked
		options.ForceCompressionFormat = true
	case "pull":
		source, err = docker.ParseReference("//" + from)
		if err != nil {
			return err
		}
		store, err := storage.GetStore(storage.StoreOptions{
			RunRoot:         filepath.Join(to, "run"),
			GraphRoot:       filepath.Join(to, "root"),
			GraphDriverName: "overlay",
			PullOptions:     map[string]string{"enable_partial_images": "true"},
		})
		if err != nil {
			return err
		}
		defer func() { _, _ = store.Shutdown(true) }()
		destination, err = istorage.Transport.ParseStoreReference(store, "pulled.test/"+filepath.Base(from))
		if err != nil {
			return err
		}
	}
	_, err = copy.Image(context.Background(), trust, destination, source, options)
	return err
}
