import type { Credential } from "../connector/credential.ts";
import { EgressError, type EgressLogin } from "./http-client/egress-tunnel.ts";
import { holdMsAfter, trialMs } from "./login-holds.ts";
import { basicAuthorization } from "./token-client.ts";

export interface EgressLoginOptions {
  /** The proxy, for messages: `http://proxy.corp:3128`. */
  readonly proxyName: string;
  /** Reads the login; undefined where there is none. What it throws later leaves the last one in use. */
  readonly read: () => Promise<Credential | undefined>;
  /** Milliseconds of any clock that does not jump. */
  readonly now: () => number;
}

/** A login that was read is used for so long before it is read again. */
const freshMs = 2_000;

/**
 * Makes the login at a company's proxy. The account is often a person's or a directory's, and is locked after some wrong
 * passwords, so the rule is that of registries: one login is tried first, the others wait for what comes of it, and a
 * refused one is tried again after a minute, then after twice the time each, up to ten. A changed login is tried at once.
 * @throws what the first reading throws
 */
export async function createEgressLogin({
  proxyName,
  read,
  now,
}: EgressLoginOptions): Promise<EgressLogin> {
  const authorizationNow = async (): Promise<string | undefined> => {
    const credential = await read();
    return credential && basicAuthorization(credential);
  };
  let authorization = await authorizationNow();
  let readAt = now();
  let reading: Promise<void> | undefined;
  let isGood = false;
  let refusals = 0;
  let retryAt = Number.NEGATIVE_INFINITY;
  let trial: PromiseWithResolvers<void> | undefined;

  const endTrial = (): void => {
    trial?.resolve();
    trial = undefined;
  };
  const beginTrial = (): void => {
    const begun = Promise.withResolvers<void>();
    const timer = setTimeout(begun.resolve, trialMs);
    void begun.promise.then(() => clearTimeout(timer));
    trial = begun;
  };
  const readAgain = async (): Promise<void> => {
    const before = authorization;
    try {
      authorization = await authorizationNow();
    } catch {
      // The last login stays in use: a Secret may be just about to be replaced.
    }
    readAt = now();
    if (authorization === before) return;
    isGood = false;
    refusals = 0;
    retryAt = Number.NEGATIVE_INFINITY;
    endTrial();
  };
  const refresh = (): Promise<void> => {
    if (now() - readAt < freshMs) return Promise.resolve();
    reading ??= readAgain().finally(() => {
      reading = undefined;
    });
    return reading;
  };
  const checkHold = (): void => {
    const remainingMs = retryAt - now();
    if (remainingMs <= 0) return;
    const seconds = Math.ceil(remainingMs / 1000);
    const message = `the egress proxy ${proxyName} has refused its login (407), which is tried again in ${seconds} s`;
    throw new EgressError("EGRESS_LOGIN", message, advice);
  };
  return {
    async take() {
      await refresh();
      if (authorization === undefined) return undefined;
      checkHold();
      if (!isGood && trial !== undefined) {
        await trial.promise;
        checkHold();
      }
      if (!isGood && trial === undefined) beginTrial();
      return authorization;
    },
    current() {
      void refresh();
      return authorization;
    },
    report(sent, isAccepted) {
      if (sent === undefined || sent !== authorization) return;
      if (isAccepted === true) {
        isGood = true;
        refusals = 0;
      } else if (isAccepted === false) {
        isGood = false;
        refusals += 1;
        retryAt = now() + holdMsAfter(refusals);
      }
      endTrial();
    },
  };
}

const advice =
  "correct the Secret connectors-egress-login (the file of --egress-login): another login is tried at once";
