/**
 * Names of the OCI distribution specification 1.1, "Pulling manifests". None of these expressions
 * lets a `%`, a `\`, an empty component, one of dots alone, or an upper-case repository through, so
 * what matches can be put into a path as it is.
 */
const repository = /^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$/;
const tag = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const digest = /^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;

const maxRepositoryLength = 255;
const maxDigestLength = 300;

export const isRepository = (text: string): boolean =>
  text.length <= maxRepositoryLength && repository.test(text);

export const isDigest = (text: string): boolean =>
  text.length <= maxDigestLength && digest.test(text);

/** A tag or a digest: what may stand behind `/manifests/`. */
export const isReference = (text: string): boolean => tag.test(text) || isDigest(text);
