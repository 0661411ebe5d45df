/** Of this program, as package.json has it. */
export const version = "0.1.0";

/** The name of this program in the User-Agent of its requests. */
export const product = "oci-connector";

/**
 * The User-Agent of every request to a registry, its token server or its storage. Some firewalls answer 403 to a request
 * without one (harbor#23025).
 */
export const userAgent: string = `${product}/${version}`;
