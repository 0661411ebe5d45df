import { matches } from "../connector/pattern-set.ts";
import type { Caller } from "./caller.ts";

/** Whom the operator of a machine allows which connectors. */
export interface UserRule {
  readonly kind: "user" | "group";
  /** A name, or the number of a user or group. */
  readonly who: string;
  /** Patterns of `namespace/name`. */
  readonly connectors: readonly string[];
}

/** The users and groups of a machine. */
export interface UserDatabase {
  /** The number of a user, or undefined where there is none of that name. */
  readonly userNumber: (name: string) => Promise<number | undefined>;
  /** The numbers of a group's members, or undefined where there is no such group. */
  readonly groupMembers: (name: string) => Promise<readonly number[] | undefined>;
}

/** The users who are not root and may have volumes. */
export interface AllowedUsers {
  /** Their numbers. */
  readonly uids: readonly number[];
  /** Whether a caller may have a volume with these connectors (`namespace/name`). Root may with all. */
  readonly allows: (caller: Caller, connectors: readonly string[]) => boolean;
}

/** How many users can have a socket. */
const maxUsers = 500;

/**
 * Finds the users whom rules allow anything.
 * @throws Error with the name, where there is no such user or group, or where it is root
 */
export async function findAllowedUsers(
  rules: readonly UserRule[],
  database: UserDatabase,
): Promise<AllowedUsers> {
  const patterns = new Map<number, string[]>();
  for (const rule of rules) {
    for (const uid of await membersOf(rule, database)) {
      patterns.set(uid, [...(patterns.get(uid) ?? []), ...rule.connectors]);
    }
  }
  if (patterns.size > maxUsers) {
    throw new Error(
      `--allow: found ${patterns.size} users, wanted ${maxUsers} at most, since each has a socket: name smaller groups`,
    );
  }
  return {
    uids: [...patterns.keys()],
    allows: ({ uid }, connectors) =>
      uid === 0 ||
      connectors.every(
        (name) => patterns.get(uid)?.some((pattern) => matches(pattern, name)) === true,
      ),
  };
}

async function membersOf(
  { kind, who }: UserRule,
  database: UserDatabase,
): Promise<readonly number[]> {
  if (kind === "group") {
    const members = await database.groupMembers(who);
    if (members === undefined) {
      throw new Error(
        `--allow: there is no group ${who} on this machine: make it, or name another`,
      );
    }
    return members.filter((uid) => uid !== 0);
  }
  const uid = await database.userNumber(who);
  if (uid === undefined) {
    throw new Error(`--allow: there is no user ${who} on this machine: make it, or name another`);
  }
  if (uid === 0) {
    throw new Error(`--allow: ${who} is root, who may use every connector: leave that out`);
  }
  return [uid];
}
