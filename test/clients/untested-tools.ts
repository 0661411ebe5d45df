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
      "By hand, Docker 20.10 has pushed, pulled and mounted layers, over TLS and over HTTP.",
      "The login is the CLI's: `DOCKER_CONFIG=$VOLUME` with `--configuration docker-config`. buildx keeps its state in that folder, too, unless `BUILDX_CONFIG` names another one.",
      "The certificate is the daemon's: `/etc/docker/certs.d/<proxy>/ca.crt` is to be a link to, or a copy of, `$VOLUME/certs.d/<proxy>/ca.crt` (`--configuration registries-conf`). The folder may hold no `*.cert` without a key, so it can't be the volume.",
      "127.0.0.0/8 counts as insecure without a setting: there the plain HTTP port just works, and a certificate is not verified. For plain HTTP at any other address there is `insecure-registries`.",
      "Its `registry-mirrors` are for Docker Hub alone: images need the proxy's name. With `docker buildx` and a builder of its own, see buildkit.",
    ],
  },
  {
    name: "nerdctl",
    why: noModule,
    notes: [
      "It reads the same `hosts.toml` with the same library as containerd's `ctr`, which is tested: `nerdctl --hosts-dir $VOLUME/certs.d`, with `--configuration containerd`.",
      "It looks for a login in `DOCKER_CONFIG`, too; the one in `hosts.toml` is enough.",
    ],
  },
  {
    name: "kaniko",
    why: noModule,
    notes: [
      "`DOCKER_CONFIG=$VOLUME` with `--configuration docker-config`; it is built on the library of crane and ko, which are tested.",
      "The certificate: `--registry-certificate=<proxy>=$VOLUME/ca.crt`; for plain HTTP `--insecure-registry=<proxy>`.",
      "`--registry-map=<registry>=<proxy>/namespaces/<namespace>/connectors/<name>` is there for base images that keep their own names.",
    ],
  },
];
