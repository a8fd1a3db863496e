import type { Provider, WorkspaceSpec } from '@cde/server/providers/provider.ts';

/** One provider with its platform, and the same done by hand. */
export interface Entry {
  provider: Provider;
  makeSpec(): WorkspaceSpec;
  /** Resolves with the first output of a command inside a running workspace. */
  runInside(spec: WorkspaceSpec): Promise<void>;
  /** Calls of the provider to its engine so far. */
  calls(): number;
  /** The same with the engine's own command line. Each takes the name of a machine. */
  byHand: {
    start(name: string): Promise<void>;
    startAgain(name: string): Promise<void>;
    stop(name: string): Promise<void>;
    remove(name: string): Promise<void>;
  };
  close(): Promise<void>;
}
