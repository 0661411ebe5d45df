const patternForm = /^[A-Za-z0-9._*-]+(\/[A-Za-z0-9._*-]+)*$/;
const maxPatternLength = 255;

/** What a pattern looks like, for messages. */
export const patternRule =
  'a pattern such as "team-a/*" or "**": components of letters, digits and . _ -, "*" for any part of one, "**" for any number of them';

/** Whether a text is a valid pattern of repositories, tags or ServiceAccounts. */
export const isPattern = (text: string): boolean =>
  text.length <= maxPatternLength && patternForm.test(text);

/**
 * Whether a pattern matches a whole text, component by component. Who asks more than once keeps a {@link PatternSet}.
 * @example
 * matches("team-a/*", "team-a/web"); // true
 * matches("team-a/*", "team-a/web/base"); // false
 * matches("team-a/**", "team-a/web/base"); // true
 */
export const matches = (pattern: string, text: string): boolean =>
  new PatternSet([pattern]).matches(text);

/** Whether a pattern matches every text, as `**` does. */
export function matchesEverything(pattern: string): boolean {
  const components = pattern.split("/");
  const singles = components.filter((component) => component !== "**");
  const isAnyOne = singles.every((component) => /^\*+$/.test(component));
  return isAnyOne && singles.length <= 1 && singles.length < components.length;
}

const slash = 47;
/** Patterns have ASCII characters alone, so that no literal matches a text's others. */
const alphabetSize = 128;

/**
 * Patterns, compiled to one automaton that reads a text once for all of them. `*` matches any part of one component,
 * and `**` any number of components.
 *
 * A state is a bit, and a step moves all of them at once (Baeza-Yates and Gonnet, "A new approach to text searching",
 * 1992), so there is nothing to try again: a text of n characters takes n times {@link words} operations,
 * whatever it and the patterns look like.
 */
export class PatternSet {
  /** The number of 32-bit words that hold the states. There is about one state for each character of the patterns. */
  readonly words: number;
  /** The memory that the automaton takes up. */
  readonly bytes: number;
  /** By character: the states that it leads to from the one before. */
  readonly #entered: readonly (Uint32Array | undefined)[];
  /** The states before any character. */
  readonly #first: Uint32Array;
  /** States of `*`, which stay with any character but a slash. */
  readonly #inComponent: Uint32Array;
  /** States of `**`, which stay with every character, and lead to the next one at the begin of each component. */
  readonly #anywhere: Uint32Array;
  /** By pattern: its last state. */
  readonly #lastStates: Uint32Array;

  /** @param patterns that `isPattern` is true for */
  constructor(patterns: readonly string[]) {
    const compiler = new Compiler(patterns);
    this.#lastStates = Uint32Array.from(patterns, (pattern) => compiler.add(pattern));
    const { words, entered, first, inComponent, anywhere } = compiler;
    this.words = words;
    this.#entered = entered;
    this.#first = first;
    this.#inComponent = inComponent;
    this.#anywhere = anywhere;
    const masks = entered.filter((mask) => mask !== undefined).length + 3;
    this.bytes = masks * words * 4 + patterns.length * 4;
  }

  /** The indexes of the patterns that match a whole text, in their order. */
  matching(text: string): readonly number[] {
    let states = Uint32Array.from(this.#first);
    this.#beginComponent(states);
    let next = new Uint32Array(this.words);
    for (let at = 0; at <= text.length; at += 1) {
      const character = at < text.length ? text.charCodeAt(at) : slash;
      if (!this.#step(states, character, next)) return [];
      [states, next] = [next, states];
    }
    const found: number[] = [];
    for (let index = 0; index < this.#lastStates.length; index += 1) {
      if (hasBit(states, this.#lastStates[index] ?? 0)) found.push(index);
    }
    return found;
  }

  /** Whether one of the patterns matches a whole text. */
  matches(text: string): boolean {
    return this.matching(text).length > 0;
  }

  /** @returns whether there are states left */
  #step(states: Uint32Array, character: number, next: Uint32Array): boolean {
    const entered = this.#entered[character];
    const inComponent = character === slash ? undefined : this.#inComponent;
    const anywhere = this.#anywhere;
    let carry = 0;
    let left = 0;
    for (let word = 0; word < states.length; word += 1) {
      const active = states[word] ?? 0;
      const moved = (active << 1) | carry;
      carry = active >>> 31;
      let result = active & (anywhere[word] ?? 0);
      if (entered !== undefined) result |= moved & (entered[word] ?? 0);
      if (inComponent !== undefined) result |= active & (inComponent[word] ?? 0);
      next[word] = result;
      left |= result;
    }
    if (character === slash) this.#beginComponent(next);
    return left !== 0;
  }

  /** At the begin of a component, `**` may have come to its end. No two of them are neighbours, so one step suffices. */
  #beginComponent(states: Uint32Array): void {
    let carry = 0;
    for (let word = 0; word < states.length; word += 1) {
      const active = states[word] ?? 0;
      const ended = active & (this.#anywhere[word] ?? 0);
      states[word] = active | (ended << 1) | carry;
      carry = ended >>> 31;
    }
  }
}

/** Gives each place of each pattern a state. */
class Compiler {
  readonly words: number;
  readonly entered: (Uint32Array | undefined)[] = new Array(alphabetSize);
  readonly first: Uint32Array;
  readonly inComponent: Uint32Array;
  readonly anywhere: Uint32Array;
  #state = -1;

  /** @param patterns all that are to be added */
  constructor(patterns: readonly string[]) {
    const states = patterns.reduce((sum, pattern) => sum + mostStates(pattern), 0);
    this.words = Math.ceil(states / 32);
    this.first = new Uint32Array(this.words);
    this.inComponent = new Uint32Array(this.words);
    this.anywhere = new Uint32Array(this.words);
  }

  /** @returns the pattern's last state */
  add(pattern: string): number {
    this.#state += 1;
    setBit(this.first, this.#state);
    let before = "";
    for (const component of pattern.split("/")) {
      if (component !== "**") this.#addComponent(component);
      else if (before !== component) this.#addGap(); // two of them are the same as one
      before = component;
    }
    return this.#state;
  }

  #addGap(): void {
    setBit(this.anywhere, this.#state);
    this.#state += 1;
  }

  #addComponent(component: string): void {
    for (const character of component) {
      if (character === "*") setBit(this.inComponent, this.#state);
      else this.#enter(character.charCodeAt(0));
    }
    this.#enter(slash); // a text is read with a slash behind each of its components
  }

  #enter(character: number): void {
    this.#state += 1;
    const mask = this.entered[character] ?? new Uint32Array(this.words);
    this.entered[character] = mask;
    setBit(mask, this.#state);
  }
}

/** One state before the first character and one behind each, where `*` has none and `**` one; and one for the last slash. */
const mostStates = (pattern: string): number => pattern.length + 2;

function setBit(mask: Uint32Array, bit: number): void {
  const word = bit >>> 5;
  mask[word] = (mask[word] ?? 0) | (1 << (bit & 31));
}

const hasBit = (mask: Uint32Array, bit: number): boolean =>
  (((mask[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;
