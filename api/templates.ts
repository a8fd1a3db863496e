import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { boundedRecord, Id, Moment, maxInteger, PageQuery, page, TemplateName } from './names.ts';
import { Parameter, ParameterValues } from './template-parameters.ts';

export const TemplateVersion = z.object({
  id: Id,
  templateId: Id,
  number: z.number().int(),
  message: z.string(),
  provider: z.string(),
  parameters: z.array(Parameter),
  active: z.boolean().describe('True for the version that new workspaces and updates use'),
  createdAt: Moment,
  createdBy: z.string().nullable(),
});
export type TemplateVersion = z.infer<typeof TemplateVersion>;

export const Template = z.object({
  id: Id,
  name: TemplateName,
  title: z.string(),
  description: z.string(),
  icon: z.string(),
  provider: z.string(),
  activeVersion: TemplateVersion,
  workspaces: z.number().int().describe('How many workspaces use it'),
  createdAt: Moment,
  updatedAt: Moment,
});
export type Template = z.infer<typeof Template>;

/** The folder of a template: relative paths and UTF-8 text. At most 64 files and 512 KiB in total. */
const TemplateFiles = boundedRecord(z.string().max(200), z.string().max(262144), 64);

/** An error or warning in a file of a template. */
export const Fault = z.object({
  file: z.string(),
  line: z.number().int().describe('From 1'),
  column: z.number().int().describe('From 1'),
  path: z.string().describe('The key in the file: parameters[0].default'),
  message: z.string(),
  hint: z.string().optional(),
});
export type Fault = z.infer<typeof Fault>;

const tag = 'templates';
const VersionNumber = z.coerce.number().int().min(1).max(maxInteger);
const nameParams = z.object({ template: z.string().max(80).describe("A template's name or id") });

export const listTemplates = endpoint({
  method: 'GET',
  path: '/api/v1/templates',
  tag,
  summary: 'List templates',
  permission: 'template:read',
  query: PageQuery,
  reply: page(Template),
});
export const getTemplate = endpoint({
  method: 'GET',
  path: '/api/v1/templates/:template',
  tag,
  summary: 'Show a template',
  permission: 'template:read',
  params: nameParams,
  reply: Template,
});
export const listTemplateVersions = endpoint({
  method: 'GET',
  path: '/api/v1/templates/:template/versions',
  tag,
  summary: "List a template's versions, newest first",
  permission: 'template:read',
  params: nameParams,
  query: PageQuery,
  reply: page(TemplateVersion),
});
export const getTemplateVersionFiles = endpoint({
  method: 'GET',
  path: '/api/v1/templates/:template/versions/:number/files',
  tag,
  summary: 'Get the folder of a version',
  permission: 'template:write',
  maxConcurrent: 16,
  params: nameParams.extend({ number: VersionNumber }),
  reply: z.object({ files: TemplateFiles }),
});
export const validateTemplate = endpoint({
  method: 'POST',
  path: '/api/v1/templates/validate',
  tag,
  summary: 'Validate a folder without publishing it',
  permission: 'template:write',
  maxConcurrent: 8,
  body: z.object({
    files: TemplateFiles,
    cluster: z
      .string()
      .max(80)
      .optional()
      .describe(
        "Also validates its objects on this cluster, as a dry run. '': the cluster that the template chooses",
      ),
    parameters: ParameterValues.optional().describe(
      'The parameters to validate with; by default the defaults',
    ),
  }),
  reply: z.object({
    valid: z.boolean(),
    faults: z.array(Fault),
    refused: z
      .array(z.object({ message: z.string(), detail: z.string().optional(), hint: z.string().optional() }))
      .describe('Why the cluster rejects objects of the template'),
    warnings: z.array(Fault).describe('What is valid but may be unintended'),
    name: z.string().nullable(),
    parameters: z.array(Parameter),
  }),
});
export const publishTemplate = endpoint({
  method: 'POST',
  path: '/api/v1/templates',
  tag,
  summary: 'Publish a folder as a new version (and a new template, if the name is new)',
  permission: 'template:write',
  maxConcurrent: 8,
  body: z.object({
    files: TemplateFiles,
    message: z.string().max(500).default(''),
    activate: z.boolean().default(true),
  }),
  reply: Template,
  status: 201,
  idempotent: true,
});
export const activateTemplateVersion = endpoint({
  method: 'POST',
  path: '/api/v1/templates/:template/versions/:number/activate',
  tag,
  summary: 'Make a version the active one',
  permission: 'template:write',
  params: nameParams.extend({ number: VersionNumber }),
  reply: Template,
  idempotent: true,
});
export const deleteTemplate = endpoint({
  method: 'DELETE',
  path: '/api/v1/templates/:template',
  tag,
  summary: 'Delete a template that no workspace uses',
  permission: 'template:write',
  params: nameParams,
});
