import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Failure } from '../failure/failure.ts';

// Programs that cde starts by path, because the CLI must not import their code. The packaged CLI (cli/bundle.ts)
// contains the template check, but no server.

const beside = (repository: string, packaged: string): string => {
  const path = fileURLToPath(new URL(repository, import.meta.url));
  return existsSync(path) ? path : fileURLToPath(new URL(packaged, import.meta.url));
};

/** Checks a template's files without a server. */
export const templateCheckProgram = (): string =>
  beside('../../server/templates/check.ts', './template-check.mjs');

/** The server. Throws if this `cde` is packaged without it. */
export const serverProgram = (): string => installed('../../server/main.ts', 'The server');

/** The satellite. Throws if this `cde` is packaged without it. */
export const satelliteProgram = (): string => installed('../../satellite/main.ts', 'The satellite');

function installed(path: string, what: string): string {
  const found = fileURLToPath(new URL(path, import.meta.url));
  if (existsSync(found)) return found;
  throw new Failure('not-in-package', `${what} is not part of this installation of cde.`, {
    detail: 'The packaged command line has no server and no satellite in it.',
    hint: 'Run it from the repository, or from an image: docs/install-kubernetes.md',
  });
}
