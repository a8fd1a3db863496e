import { randomUUID } from 'node:crypto';
import type { Parameter } from '@cde/api/template-parameters.ts';
import type { Template, TemplateVersion } from '@cde/api/templates.ts';
import { confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { fields, line, type Result, result, table } from '../command/result.ts';
import {
  activateTemplateVersion,
  deleteTemplate,
  getTemplate,
  listTemplates,
  listTemplateVersions,
} from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

export async function list(context: Context): Promise<Result> {
  const client = await context.client();
  const rows = await readAll((query) => client.call(listTemplates, { query }));
  return result(rows, () => [
    table<Template>(
      [
        { title: 'NAME', cell: (row, c) => c.bold(row.name) },
        { title: 'TITLE', cell: (row) => clean(row.title) },
        { title: 'PROVIDER', cell: (row) => row.provider },
        { title: 'VERSION', cell: (row) => String(row.activeVersion.number) },
        { title: 'WORKSPACES', cell: (row) => String(row.workspaces) },
        { title: 'CHANGED', cell: (row) => relative(row.updatedAt), plain: (row) => row.updatedAt },
      ],
      rows,
      'No templates. Publish one: cde template push FOLDER',
    ),
  ]);
}

export async function show(context: Context, input: { template: string }): Promise<Result> {
  const client = await context.client();
  const template = await client.call(getTemplate, { params: { template: input.template } });
  const { activeVersion } = template;
  return result(template, ({ colors, moment }) => [
    fields([
      ['name', colors.bold(template.name)],
      ['title', clean(template.title)],
      ['description', clean(template.description.replaceAll('\n', ' '))],
      ['provider', template.provider],
      ['version', String(activeVersion.number)],
      ['published', moment(activeVersion.createdAt)],
      ['workspaces', String(template.workspaces)],
    ]),
    line(''),
    table<Parameter>(
      [
        { title: 'PARAMETER', cell: (row, c) => c.bold(row.name) },
        { title: 'TYPE', cell: (row) => row.type },
        {
          title: 'DEFAULT',
          cell: (row, c) => (row.default === undefined ? c.yellow('required') : valueText(row.default)),
        },
        { title: 'ALLOWED', cell: (row) => clean(allowedText(row)) },
        { title: 'TITLE', cell: (row, c) => c.dim(clean(row.title ?? '')) },
      ],
      activeVersion.parameters,
      'This template has no parameters.',
    ),
  ]);
}

const valueText = (value: unknown) =>
  clean(Array.isArray(value) ? value.join(',') : value === '' ? '""' : String(value));

function allowedText(parameter: Parameter): string {
  if ('options' in parameter && parameter.options)
    return parameter.options.map((option) => valueText(option.value)).join(' | ');
  if (parameter.type === 'number' && (parameter.min !== undefined || parameter.max !== undefined))
    return `${parameter.min ?? ''}..${parameter.max ?? ''}${parameter.integer ? ' whole' : ''}`;
  return parameter.type === 'string' ? (parameter.pattern ?? '') : '';
}

export async function versions(context: Context, input: { template: string }): Promise<Result> {
  const client = await context.client();
  const params = { template: input.template };
  const rows = await readAll((query) => client.call(listTemplateVersions, { params, query }));
  return result(rows, () => [
    table<TemplateVersion>(
      [
        {
          title: 'VERSION',
          cell: (row, c) => (row.active ? c.green(`${row.number} *`) : String(row.number)),
        },
        { title: 'WHEN', cell: (row) => relative(row.createdAt), plain: (row) => row.createdAt },
        { title: 'BY', cell: (row) => row.createdBy ?? '' },
        { title: 'MESSAGE', cell: (row) => clean(row.message) },
      ],
      rows,
      'No versions. Publish one: cde template push FOLDER',
    ),
  ]);
}

export async function activate(
  context: Context,
  input: { template: string; version: string },
): Promise<Result> {
  if (!/^\d{1,9}$/.test(input.version))
    throw usage(`A version is a number, not ${JSON.stringify(input.version)}.`);
  const client = await context.client();
  const template = await client.call(activateTemplateVersion, {
    params: { template: input.template, number: Number(input.version) },
    idempotencyKey: randomUUID(),
  });
  return result(template, () => [
    line(`${template.name} version ${template.activeVersion.number} is active.`),
  ]);
}

export async function remove(context: Context, input: { template: string; yes: boolean }): Promise<Result> {
  const client = await context.client();
  if (!input.yes) {
    const { workspaces } = await client.call(getTemplate, { params: { template: input.template } });
    if (workspaces > 0)
      throw new Failure('template-in-use', `The template ${input.template} is in use.`, {
        exitCode: exitCodes.conflict,
        detail: `${workspaces} workspace${workspaces === 1 ? ' uses' : 's use'} it.`,
        hint: `Delete them first: cde list --all --template ${input.template}`,
      });
  }
  await confirm(context, `Delete the template ${input.template} and all its versions?`, input.yes);
  await client.call(deleteTemplate, { params: { template: input.template } });
  return result({ template: input.template, deleted: true }, () => [
    line(`The template ${input.template} is deleted.`),
  ]);
}
