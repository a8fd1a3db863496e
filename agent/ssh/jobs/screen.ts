import * as serializeModule from '@xterm/addon-serialize';
import * as headlessModule from '@xterm/headless';

/** CommonJS to Node, modules to the bundle. */
const exportsOf = <T>(module: T): T => (module as { default?: T }).default ?? module;
const { Terminal } = exportsOf(headlessModule);
const { SerializeAddon } = exportsOf(serializeModule);

/** Lines above the screen that are kept: about 5 MB at 200 columns, were they all full. */
const scrollback = 2000;

/** What a terminal shows, without one: takes a program's output, and gives it again as it stands. */
export interface Screen {
  /** `done` is called once it has been taken in. */
  write(chunk: Buffer, done: () => void): void;
  resize(columns: number, rows: number): void;
  /** Output that makes a fresh terminal show the same: scrollback, screen, modes, cursor. */
  snapshot(): string;
  /** Where a program asks the terminal something: what it would answer. */
  onReply(listener: (text: string) => void): void;
}

export function makeScreen(columns: number, rows: number): Screen {
  const terminal = new Terminal({ cols: columns, rows, scrollback, allowProposedApi: true });
  const serializer = new SerializeAddon();
  // Its types are those of the terminal in a page, of which it uses the part that both have.
  terminal.loadAddon(serializer as unknown as Parameters<typeof terminal.loadAddon>[0]);
  return {
    write: (chunk, done) => terminal.write(chunk, done),
    resize: (wide, high) => terminal.resize(wide, high),
    snapshot: () => serializer.serialize({ scrollback }),
    onReply: (listener) => void terminal.onData(listener),
  };
}
