/**
 * A program of its own for `cde template validate`, which needs no server: reads `{"files": …}` from stdin and prints
 * what `POST /api/v1/templates/validate` would reply without a cluster.
 */
import { text } from 'node:stream/consumers';
import { parseTemplate } from './parse.ts';

const { files } = JSON.parse(await text(process.stdin)) as { files: Record<string, string> };
const { template, faults, warnings } = parseTemplate(files);
process.stdout.write(
  JSON.stringify({
    valid: template !== null,
    refused: [],
    faults,
    warnings,
    name: template?.name ?? null,
    parameters: template?.parameters ?? [],
  }),
);
