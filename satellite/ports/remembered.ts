/** A page asks for hundreds of files at once; what was true so long ago still counts. */
const rememberMs = 2_000;
/** Answers remembered of one kind: whoever asks for made-up names must not fill the memory. */
const mostRemembered = 5_000;

/**
 * Asks for the same thing once in two seconds, and once at a time. A failure is everybody's who waits for it, and
 * is not remembered, nor is an answer of which `keep` says no.
 */
export function remembered<T>(keep: (value: T) => boolean = () => true) {
  const known = new Map<string, { answer: Promise<T>; cameAt: number }>();
  return {
    /** `atMostMs`: how old an answer may be. */
    read(key: string, ask: () => Promise<T>, atMostMs = rememberMs): Promise<T> {
      const found = known.get(key);
      if (found && performance.now() - found.cameAt < atMostMs) return found.answer;
      // Until it comes it is as new as can be.
      const entry = { answer: ask(), cameAt: Number.POSITIVE_INFINITY };
      known.delete(key);
      known.set(key, entry);
      if (known.size > mostRemembered) known.delete(known.keys().next().value!);
      const forget = () => {
        if (known.get(key) === entry) known.delete(key);
      };
      entry.answer.then((value) => {
        entry.cameAt = performance.now();
        if (!keep(value)) forget();
      }, forget);
      return entry.answer;
    },
    /** What was asked before counts no more, not even when it is answered only now. */
    forget() {
      known.clear();
    },
  };
}
