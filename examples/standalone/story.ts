import { waitForPort } from "./registry.ts";
import type { Shell } from "./shell.ts";
import type { Login } from "./token-server.ts";

/** Where everything listens, on this machine alone. */
export interface Ports {
  readonly registry: number;
  /** Of the server that gives out the registry's tokens. */
  readonly token: number;
  /** Of the proxy, as the next. */
  readonly http: number;
  readonly https: number;
}

export interface StoryOptions {
  readonly login: Login;
  readonly ports: Ports;
  readonly interruption: AbortSignal;
}

/** Mounts the volume that all commands of the story use. */
export const mountCommand: string =
  "oci-connector mount --state $DEMO/state --connectors team-a/registry \\\n" +
  "    --configuration docker-config,registries-conf,buildkitd $VOLUME";

/**
 * The story of the demo. Every command is run just as it is shown, and can be run again later but for
 * the process of the third step, which goes on.
 * @throws where a command does not end as told, and the interruption's reason where that comes first
 */
export async function tellStory(shell: Shell, options: StoryOptions): Promise<void> {
  const { login, ports, interruption } = options;
  const { say, run, background } = shell;

  say("\n1. A registry that requires a login for everything.\n");
  await run(
    `curl -si http://localhost:${ports.registry}/v2/ | grep -iE '^(http|www-authenticate)'`,
  );

  say("2. A connector has its address, and a Secret has the login: here, and nowhere else.\n");
  await run("grep -v password: $DEMO/connectors/team-a.yaml");

  say("3. One process serves the connectors of that folder, without Kubernetes.\n");
  background(
    "oci-connector standalone --connectors $DEMO/connectors --state $DEMO/state \\\n" +
      `    --listen http://127.0.0.1:${ports.http} --listen https://127.0.0.1:${ports.https} 2> $DEMO/standalone.log`,
  );
  await waitForPort(ports.https, interruption);
  await run("until [ -S $DEMO/state/csi.sock ]; do sleep 0.1; done", { silent: true });

  say(
    "4. A build gets a volume that opens this connector, with all the configuration that tools need.\n",
  );
  await run(mountCommand);
  await run("ls -A $VOLUME");
  await run("cut -c 1-60 $VOLUME/config.json");

  say("5. A base image is built, and pushed over TLS, verified with the volume's certificate.\n");
  await run(
    "c=$(buildah from scratch) && buildah copy -q $c $(which busybox) /bin/sh > /dev/null \\\n" +
      "    && buildah copy -q $c $(which busybox) /bin/cat > /dev/null && buildah commit -q $c base",
  );
  await run(
    "buildah push --authfile $VOLUME/config.json --cert-dir $CERTS base docker://$HTTPS/base:1",
  );

  say("6. skopeo pulls it: over TLS, and over plain HTTP as the volume's registries.conf says.\n");
  await run(
    "skopeo copy --authfile $VOLUME/config.json --src-cert-dir $CERTS \\\n" +
      "    docker://$HTTPS/base:1 dir:$DEMO/pulled",
  );
  await run(
    "mkdir -p ~/.config/containers/registries.conf.d \\\n" +
      "    && ln -sf $VOLUME/registries.conf ~/.config/containers/registries.conf.d/oci-connector.conf",
  );
  await run(
    "skopeo inspect --authfile $VOLUME/config.json \\\n" +
      "    --format '{{.Name}} {{.Digest}}' docker://$HTTP/base:1",
  );

  say("7. buildah builds on the private base image, and pushes what it built.\n");
  await run("cat $DEMO/app/Containerfile");
  await run(
    "buildah bud --authfile $VOLUME/config.json --cert-dir $CERTS \\\n" +
      "    --build-arg BASE=$HTTPS/base:1 -t app $DEMO/app",
  );
  await run(
    "buildah push --authfile $VOLUME/config.json --cert-dir $CERTS app docker://$HTTPS/app:1",
  );
  await run("buildah push --authfile $VOLUME/config.json app docker://$HTTP/app:2");

  say("8. Without the volume's config.json the same commands are refused.\n");
  await run("skopeo inspect --cert-dir $CERTS docker://$HTTPS/app:1", { fails: true });
  await run("buildah push --cert-dir $CERTS app docker://$HTTPS/app:3", { fails: true });

  say("9. The registry's password is in no file of the volume, and in no output above.\n");
  await run("grep -rF \"$(sed -n 's/.*password: //p' $DEMO/connectors/team-a.yaml)\" $VOLUME/", {
    fails: true,
  });
  if (shell.transcript().includes(login.password)) throw new Error("the password was shown");

  say("10. After the unmount the volume's token is invalid, even for somebody who kept a copy.\n");
  await run("mkdir -p $DEMO/kept && cp $VOLUME/config.json $VOLUME/ca.crt $DEMO/kept/");
  await run("rm ~/.config/containers/registries.conf.d/oci-connector.conf");
  await run("oci-connector unmount --state $DEMO/state $VOLUME");
  await run(
    "skopeo inspect --authfile $DEMO/kept/config.json --cert-dir $DEMO/kept docker://$HTTPS/app:1",
    { fails: true },
  );
}
