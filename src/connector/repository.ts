/**
 * Names of the OCI distribution specification 1.1, "Pulling manifests". None of these expressions
 * matches a `%`, a `\`, an empty component, a component of dots alone, or an upper-case repository, so
 * a name that matches needs no escaping in a path.
 */

const repository = /^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$/;
const tag = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const digest = /^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;

const maxRepositoryLength = 255;
const maxDigestLength = 300;

/** Whether a text is the name of a repository. */
export const isRepository = (text: string): boolean =>
  text.length <= maxRepositoryLength && repository.test(text);

/** Whether a text is a digest: `sha256:<hex>`, or one of another algorithm. */
export const isDigest = (text: string): boolean =>
  text.length <= maxDigestLength && digest.test(text);

/** Whether a text is a tag or a digest, which is what may follow `/manifests/` in a path. */
export const isReference = (text: string): boolean => tag.test(text) || isDigest(text);
