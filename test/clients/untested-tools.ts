/** A tool that can't be had where only package registries are reached, and what its documentation and its source say. */
export interface UntestedTool {
  readonly name: string;
  readonly why: string;
  readonly notes: readonly string[];
}

const noModule = "its Go module can't be had from the module proxy";

export const untestedTools: readonly UntestedTool[] = [
  {
    name: "docker",
    why: "its package is a service, nothing for tests to install",
    notes: [
      "In a manual test, Docker 20.10 pushed, pulled and mounted layers, over TLS and over HTTP.",
      "The login is the CLI's: `DOCKER_CONFIG=$VOLUME` with `--configuration docker-config`. buildx also keeps its state in that folder, unless `BUILDX_CONFIG` names another one.",
      "The certificate is the daemon's: `/etc/docker/certs.d/<proxy>/ca.crt` must be a link to, or a copy of, `$VOLUME/certs.d/<proxy>/ca.crt` (`--configuration registries-conf`). The folder must not have a `*.cert` without a key, so it cannot be the volume itself.",
      "127.0.0.0/8 is insecure by default: there the plain HTTP port works without a setting, and a certificate is not verified. Plain HTTP at any other address needs `insecure-registries`.",
      "Its `registry-mirrors` work only for Docker Hub: images need the proxy's name. With `docker buildx` and a builder of its own, see buildkit.",
    ],
  },
  {
    name: "nerdctl",
    why: noModule,
    notes: [
      "It reads the same `hosts.toml` with the same library as containerd's `ctr`, which is tested: `nerdctl --hosts-dir $VOLUME/certs.d`, with `--configuration containerd`.",
      "It also looks for a login in `DOCKER_CONFIG`; the one in `hosts.toml` suffices.",
    ],
  },
  {
    name: "kaniko",
    why: noModule,
    notes: [
      "`DOCKER_CONFIG=$VOLUME` with `--configuration docker-config`; it is built on the library of crane and ko, which are tested.",
      "The certificate: `--registry-certificate=<proxy>=$VOLUME/ca.crt`; for plain HTTP `--insecure-registry=<proxy>`.",
      "`--registry-map=<registry>=<proxy>/namespaces/<namespace>/connectors/<name>` lets base images keep their own names.",
    ],
  },
];
