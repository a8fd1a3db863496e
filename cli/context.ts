import type { Client } from '@cde/api/client.ts';
import type { ChosenServer } from './connection.ts';
import type { Output } from './output.ts';

/** What a command works with. */
export interface Context {
  env: NodeJS.ProcessEnv;
  out: Output;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
  /** From now on Ctrl-C is somebody else's: a child on the same terminal gets it too, and decides. */
  leaveInterrupts(): void;
  /** The server that this command talks to, and how it is signed in there. Throws when there is none. */
  server(): ChosenServer;
  /** The same, for the server with this alias or URL. */
  forServer(named: string): Context;
  /** The typed client, signed in; throws `sign-in-required` when it cannot be. */
  client(options?: { patienceMs?: number }): Promise<Client>;
}
