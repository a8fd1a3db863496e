import { makeScreenState } from './screen-state.ts';

/** A terminal that is open in a session, as its job sees it. */
export interface OpenTerminal {
  /** Call this with all output before it is sent. */
  output(chunk: Buffer): void;
  readonly isFullScreen: boolean;
  close(): void;
}

export interface OpenTerminals {
  /** `write` shows text after what has been sent so far. */
  add(write: (text: string) => void): OpenTerminal;
  /**
   * Shows a line in every terminal: now or, in one that shows a full-screen program or is within an escape sequence, once that
   * is over. A later line replaces one that still waits.
   */
  show(line: string): void;
  /** Drops lines that still wait. */
  withdraw(): void;
}

/** Keeps the terminals that are open, to warn the people in them. */
export function makeOpenTerminals(): OpenTerminals {
  const open = new Set<{ waiting: string | null; showWhenPossible(): void }>();
  return {
    add(write) {
      const state = makeScreenState();
      const entry = {
        waiting: null as string | null,
        showWhenPossible() {
          if (entry.waiting === null || state.isFullScreen || state.isMidSequence) return;
          const text = entry.waiting;
          entry.waiting = null;
          write(text);
        },
      };
      open.add(entry);
      return {
        output(chunk) {
          state.output(chunk);
          // After this chunk was sent.
          if (entry.waiting !== null) setImmediate(entry.showWhenPossible);
        },
        get isFullScreen() {
          return state.isFullScreen;
        },
        close: () => void open.delete(entry),
      };
    },
    show(line) {
      // It may follow a prompt or half a line. The bell makes terminals and tmux mark the window.
      for (const entry of open) {
        entry.waiting = `\r\n\x07${line}\r\n`;
        entry.showWhenPossible();
      }
    },
    withdraw() {
      for (const entry of open) entry.waiting = null;
    },
  };
}
