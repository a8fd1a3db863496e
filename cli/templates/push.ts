import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Parameter } from '@cde/api/template-parameters.ts';
import type { Fault } from '@cde/api/templates.ts';
import type { Context } from '../command/context.ts';
import { type Blocks, line, note, type Result, result } from '../command/result.ts';
import { publishTemplate, validateTemplate } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure, usage } from '../failure/failure.ts';
import { type Colors, clean } from '../output/output.ts';
import { templateCheckProgram } from '../processes/programs.ts';
import { readParameters } from '../workspaces/parameters.ts';
import { readTemplateFolder } from './folder.ts';

export async function push(
  context: Context,
  input: { folder: string; message: string | undefined; activate: boolean },
): Promise<Result> {
  const files = readTemplateFolder(input.folder);
  const client = await context.client({ patienceMs: 5_000 });
  const template = await client
    .call(publishTemplate, {
      body: { files, message: input.message ?? '', activate: input.activate },
      idempotencyKey: randomUUID(),
    })
    .catch(async (error) => {
      const failure = toFailure(error);
      if (failure.code !== 'template-invalid' || context.out.json) throw error;
      // The error names no file; a validation does.
      const { faults } = await client.call(validateTemplate, { body: { files } });
      for (const line of faultLines(input.folder, faults, context.out.noteColors)) context.out.note(line);
      throw new Failure(failure.code, failure.message, { exitCode: failure.exitCode, hint: failure.hint });
    });
  const { number } = template.activeVersion;
  return result(template, () => [
    line(
      input.activate
        ? `${template.name} version ${number} is published and active.`
        : `${template.name} is published. Version ${number} is still active.`,
    ),
  ]);
}

export async function validate(
  context: Context,
  input: { folder: string; cluster: string | undefined; param: string[]; paramFile: string | undefined },
): Promise<Result> {
  const files = readTemplateFolder(input.folder);
  const { cluster } = input;
  if (cluster === undefined && (input.param.length > 0 || input.paramFile !== undefined))
    throw usage('Parameters need a cluster to try them on.', 'Add one: --cluster NAME');
  let reply: Validation = await checkHere(files);
  if (reply.valid && cluster !== undefined) {
    const client = await context.client();
    const parameters = await readParameters(reply.parameters, input);
    reply = await client.call(validateTemplate, { body: { files, cluster, parameters } });
  }
  return result(
    reply,
    ({ colors }) => validationView(reply, input, colors),
    reply.valid ? exitCodes.success : exitCodes.failure,
  );
}

function validationView(
  reply: Validation,
  { folder, cluster }: { folder: string; cluster: string | undefined },
  colors: Colors,
): Blocks {
  if (reply.valid)
    return [
      ...faultLines(folder, reply.warnings, colors, 'warning: ').map(line),
      line(
        `${reply.name} is valid: ${reply.parameters.length} parameter${reply.parameters.length === 1 ? '' : 's'}.${cluster === undefined ? '' : ` The cluster ${cluster} accepts its objects.`}`,
      ),
    ];
  if (reply.refused.length > 0)
    return [
      ...reply.refused.flatMap(({ message, detail, hint }) => [
        line(clean(message)),
        detail && line(`  ${clean(detail)}`),
        hint && line(`  ${colors.cyan('→')} ${clean(hint)}`),
      ]),
      note(`The cluster ${cluster} rejects it. [template-invalid]`),
    ];
  return [
    ...faultLines(folder, reply.faults, colors).map(line),
    note(`${reply.faults.length} fault${reply.faults.length === 1 ? '' : 's'}. [template-invalid]`),
  ];
}

interface Validation {
  valid: boolean;
  faults: Fault[];
  refused: { message: string; detail?: string | undefined; hint?: string | undefined }[];
  warnings: Fault[];
  name: string | null;
  parameters: Parameter[];
}

/** Checks the files on this machine: the template language needs no server. */
async function checkHere(files: Record<string, string>): Promise<Validation> {
  const child = spawn(process.execPath, [templateCheckProgram()], { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.on('error', () => {});
  child.stdin.end(JSON.stringify({ files }));
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  if (code === 0) return JSON.parse(stdout) as Validation;
  throw new Failure('template-check-failed', 'The check of the template itself failed.', {
    detail: stderr.trim() || `It ended with ${code}.`,
    hint: 'Please report it with the lines above and the template.',
  });
}

/** `FILE:LINE:COLUMN: message`, as editors and CI systems find it. */
function faultLines(folder: string, faults: readonly Fault[], colors: Colors, kind = ''): string[] {
  return faults.flatMap((fault) => [
    `${join(folder, fault.file)}:${fault.line}:${fault.column}: ${kind}${clean(fault.message)}${fault.path ? colors.dim(` (${clean(fault.path)})`) : ''}`,
    ...(fault.hint ? [`  ${colors.cyan('→')} ${clean(fault.hint)}`] : []),
  ]);
}
