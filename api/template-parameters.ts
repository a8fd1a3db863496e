import { z } from 'zod';
import { boundedRecord, maxInteger } from './names.ts';

/** Text of a template or a parameter's value. */
export const Text = z.string().max(16_384);
/** A number of a template or a parameter's value. */
export const Figure = z.number().min(-1e15).max(1e15);

/** A value that a developer chose, or a default. */
export const ParameterValue = z.union([Text, Figure, z.boolean(), z.array(Text).max(100)]);
export type ParameterValue = z.infer<typeof ParameterValue>;
export const ParameterValues = boundedRecord(z.string().max(41), ParameterValue, 50);
export type ParameterValues = z.infer<typeof ParameterValues>;

const parameterBase = {
  name: z
    .string()
    .max(41)
    .regex(
      /^[a-z][a-z0-9_]{0,40}$/,
      'use lower-case letters, digits and underscores, starting with a letter',
    ),
  title: z.string().max(80).optional(),
  description: z.string().max(1000).optional(),
  /** Can only be set when the workspace is created. */
  immutable: z.boolean().default(false),
};
const option = <T extends z.ZodType>(value: T) =>
  z.strictObject({
    value,
    title: z.string().max(80).optional(),
    description: z.string().max(400).optional(),
  });

/** A typed parameter of a template. Without `default` it is required. */
export const Parameter = z.discriminatedUnion('type', [
  z.strictObject({
    ...parameterBase,
    type: z.literal('string'),
    default: Text.optional(),
    minLength: z.number().int().min(0).max(maxInteger).optional(),
    maxLength: z.number().int().min(1).max(maxInteger).optional(),
    pattern: z.string().max(400).optional().describe('A regular expression that the whole value must match'),
    options: z.array(option(Text)).min(1).max(1000).optional(),
  }),
  z.strictObject({
    ...parameterBase,
    type: z.literal('number'),
    default: Figure.optional(),
    min: Figure.optional(),
    max: Figure.optional(),
    integer: z.boolean().default(false),
    options: z.array(option(Figure)).min(1).max(1000).optional(),
  }),
  z.strictObject({ ...parameterBase, type: z.literal('boolean'), default: z.boolean().optional() }),
  z.strictObject({
    ...parameterBase,
    type: z.literal('list'),
    default: z.array(Text).max(100).optional(),
    maxItems: z.number().int().min(1).max(100).default(20),
    options: z.array(option(Text)).min(1).max(1000).optional(),
  }),
]);
export type Parameter = z.infer<typeof Parameter>;
