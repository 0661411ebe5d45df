/** What a kubelet is told: which images its Pods' tokens are for, and the plug-in that hands a token to the runtime. */
import { annotatedUser, connectorAnnotation, imagesAudience } from "../connector/image-hosts.ts";
import { ownMark } from "./hosts-toml.ts";

/** The plug-in's name, as a provider and as a file. */
export const providerName = "oci-connector-images";

/**
 * The plug-in, which the kubelet runs for each pull of an image that matches. All of it is POSIX sh, and nothing of it
 * needs another program. It has no login where containerd's `hosts.toml` is not ours: the runtime would show a token to
 * whoever stands there. Keys can't be found inside of values, where each quote has a backslash before it.
 */
export const pluginScript: string = `#!/bin/sh
${ownMark}
# The kubelet's credential provider for images that come through the node's proxy. It reads the kubelet's
# question, JSON, from its standard input. $1 is containerd's certs.d.
request=
while IFS= read -r line || [ -n "$line" ]; do request=$request$line; done
text_of() {
  text=
  case $request in *"\\"$1\\":\\""*) text=\${request#*"\\"$1\\":\\""} text=\${text%%\\"*} ;; esac
}
text_of image; host=\${text%%/*}
text_of serviceAccountToken; token=$text
text_of ${connectorAnnotation}
case $text in "") user=connectors ;; *[!a-z0-9./-]*) user=${annotatedUser}? ;; *) user=${annotatedUser}$text ;; esac
auth=
case $host in "" | .* | *[!][A-Za-z0-9._:-]*) token= ;; esac
case $token in "" | *[!A-Za-z0-9._-]*) ;; *)
  if [ -r "$1/$host/hosts.toml" ] && IFS= read -r mark < "$1/$host/hosts.toml" && [ "$mark" = '${ownMark}' ]
  then auth="\\"$host\\":{\\"username\\":\\"$user\\",\\"password\\":\\"$token\\"}"
  fi ;;
esac
printf '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","cacheDuration":"0s","auth":{%s}}\\n' "$auth"
`;

/** An entry of a kubelet's CredentialProviderConfig (kubelet.config.k8s.io/v1). */
export interface CredentialProvider {
  readonly name: string;
  readonly matchImages: readonly string[];
}

/**
 * The provider for a kubelet's configuration. Nothing is cached, so that no token is shown once a `hosts.toml` is gone; the
 * kubelet keeps tokens itself until most of their time is over.
 * @param matchImages the operator's patterns, which don't depend on any Connector: a kubelet reads them once
 * @param certsFolder containerd's `certs.d`
 */
export const credentialProvider = (
  matchImages: readonly string[],
  certsFolder: string,
): CredentialProvider & Readonly<Record<string, unknown>> => ({
  name: providerName,
  matchImages,
  defaultCacheDuration: "0s",
  apiVersion: "credentialprovider.kubelet.k8s.io/v1",
  args: [certsFolder],
  tokenAttributes: {
    serviceAccountTokenAudience: imagesAudience,
    cacheType: "Token", // the password that a kubelet keeps is the token itself
    requireServiceAccount: true,
    optionalServiceAccountAnnotationKeys: [connectorAnnotation],
  },
});
