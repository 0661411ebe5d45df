/** The users and groups of this machine, as getent(1) has them: also those of a directory service. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { isAccountNumber } from "../connector/account-number.ts";
import { errorCode } from "../error-code.ts";
import type { UserDatabase } from "../standalone/allowed-users.ts";

/** What a start waits for a directory service at most. */
const timeoutMs = 20_000;

/** Creates what asks getent(1), so that users of LDAP and the like count where the machine knows them. */
export function createUserDatabase(): UserDatabase {
  /** A directory service may have many thousands, so they are listed once for all groups. */
  let everybody: ReturnType<typeof getent> | undefined;
  return {
    async userNumber(name) {
      if (isAccountNumber(name)) return Number(name);
      const [entry] = await getent("passwd", [name]);
      return entry === undefined ? undefined : Number(entry[2]);
    },
    async groupMembers(name) {
      const [group] = await getent("group", [name]);
      if (group === undefined) return undefined;
      const [, , gid, list = ""] = group;
      const names = list.split(",").filter((member) => member !== "");
      const named = names.length === 0 ? [] : await getent("passwd", names);
      // Whose first group it is, the group itself does not list.
      everybody ??= getent("passwd", []);
      const first = (await everybody).filter((entry) => entry[3] === gid);
      return [...new Set([...named, ...first].map(([, , uid]) => Number(uid)))];
    },
  };
}

/** @returns the fields of the entries that there are; all entries where no name is given */
async function getent(
  database: "passwd" | "group",
  names: readonly string[],
): Promise<readonly (readonly string[])[]> {
  try {
    const args = names.length === 0 ? [database] : ["--", database, ...names];
    const options = { timeout: timeoutMs, maxBuffer: 64 * 1024 * 1024 };
    const { stdout } = await promisify(execFile)("getent", args, options);
    return entriesOf(stdout);
  } catch (error) {
    // 2: at least one name is unknown. The others are there.
    if (errorCode(error) === 2 && error instanceof Error && "stdout" in error) {
      return entriesOf(String(error.stdout));
    }
    const isMissing = errorCode(error) === "ENOENT";
    const advice = isMissing
      ? "install getent, or name users by their numbers"
      : "check the directory service of this machine, or name users by their numbers";
    throw new Error(`--allow: getent can't read the users of this machine: ${advice}`, {
      cause: error,
    });
  }
}

const entriesOf = (text: string): readonly (readonly string[])[] =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split(":"));
