import { makeScreenState } from './screen-state.ts';

/** A terminal that is open in a session, as its job sees it. */
export interface OpenTerminal {
  /** Call this with all output before it is sent. */
  output(chunk: Buffer): void;
  readonly isFullScreen: boolean;
  close(): void;
}

/** What a line is about: the stop of the workspace, or the space in the home. */
type Subject = 'stop' | 'home';

export interface OpenTerminals {
  /** `write` shows text after what has been sent so far. */
  add(write: (text: string) => void): OpenTerminal;
  /**
   * Shows a line in every terminal: now or, in one that shows a full-screen program or is within an escape sequence, once that
   * is over. A later line replaces one about the same that still waits. Returns the number of terminals.
   */
  show(line: string, about?: Subject): number;
  /** Drops lines that still wait. */
  withdraw(about?: Subject): void;
}

/** Keeps the terminals that are open, to warn the people in them. */
export function makeOpenTerminals(): OpenTerminals {
  const open = new Set<{ waiting: Map<Subject, string>; showWhenPossible(): void }>();
  return {
    add(write) {
      const state = makeScreenState();
      const entry = {
        waiting: new Map<Subject, string>(),
        showWhenPossible() {
          if (entry.waiting.size === 0 || state.isFullScreen || state.isMidSequence) return;
          const texts = [...entry.waiting.values()];
          entry.waiting.clear();
          for (const text of texts) write(text);
        },
      };
      open.add(entry);
      return {
        output(chunk) {
          state.output(chunk);
          // After this chunk was sent.
          if (entry.waiting.size > 0) setImmediate(entry.showWhenPossible);
        },
        get isFullScreen() {
          return state.isFullScreen;
        },
        close: () => void open.delete(entry),
      };
    },
    show(line, about = 'stop') {
      // It may follow a prompt or half a line. The bell makes terminals and tmux mark the window.
      for (const entry of open) {
        entry.waiting.set(about, `\r\n\x07${line}\r\n`);
        entry.showWhenPossible();
      }
      return open.size;
    },
    withdraw(about = 'stop') {
      for (const entry of open) entry.waiting.delete(about);
    },
  };
}
