import * as serializeModule from '@xterm/addon-serialize';
import * as headlessModule from '@xterm/headless';

/** CommonJS when run from source, ES modules in the bundle. */
const exportsOf = <T>(module: T): T => (module as { default?: T }).default ?? module;
const { Terminal } = exportsOf(headlessModule);
const { SerializeAddon } = exportsOf(serializeModule);

/** Lines of scrollback: at most about 5 MB at 200 columns. */
const scrollback = 2000;

/** A headless terminal: takes a program's output and can reproduce the screen. */
export interface Screen {
  /** `done` is called when it was processed. */
  write(chunk: Buffer, done: () => void): void;
  resize(columns: number, rows: number): void;
  /** Output that restores scrollback, screen, modes and cursor in a new terminal. */
  snapshot(): string;
  /** Called with the terminal's replies to a program's queries. */
  onReply(listener: (text: string) => void): void;
}

export function makeScreen(columns: number, rows: number): Screen {
  const terminal = new Terminal({ cols: columns, rows, scrollback, allowProposedApi: true });
  const serializer = new SerializeAddon();
  // Typed for the browser terminal, but it only uses what both have.
  terminal.loadAddon(serializer as unknown as Parameters<typeof terminal.loadAddon>[0]);
  return {
    write: (chunk, done) => terminal.write(chunk, done),
    resize: (wide, high) => terminal.resize(wide, high),
    snapshot: () => serializer.serialize({ scrollback }),
    onReply: (listener) => void terminal.onData(listener),
  };
}
