/** Of capabilities(7), the one that mount(2) asks for. */
const sysAdmin = 21n;

/**
 * What is missing for this process to mount volumes, undefined where nothing is: mount(8) wants both the user and the
 * capability.
 * @param status the text of `/proc/self/status`
 */
export function missingMountRight(status: string): string | undefined {
  const field = (name: string): string =>
    new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1] ?? "0";
  const user = field("Uid");
  if (user !== "0") return `found user ${user}, wanted root`;
  const capabilities = BigInt(`0x${field("CapEff")}`);
  if ((capabilities >> sysAdmin) % 2n === 1n) return undefined;
  return "found root without CAP_SYS_ADMIN, wanted root with it (in a container: --cap-add=SYS_ADMIN)";
}
