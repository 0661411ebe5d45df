// A registry of OCI distribution-spec 1.1 that keeps everything in memory and asks nobody for a login.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		fmt.Println("listening on", listener.Addr())
		err = http.Serve(listener, ociserver.New(ocimem.New(), nil))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
