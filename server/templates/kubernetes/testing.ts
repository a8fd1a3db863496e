import type { TemplateContent } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import { expect } from 'vitest';
import { checkParameters } from '../language/parameters.ts';
import { parseTemplate } from '../parse.ts';
import { renderTemplate } from '../render.ts';

export const context = {
  workspace: { id: '0197a000-0000-7000-8000-000000000001', name: 'web', owner: 'ada' },
  owner: { name: 'Ada', email: 'ada@example.com' },
};
/** The first lines of a template; the tests add a section. */
export const head = `name: k8s
provider: kubernetes
parameters:
  - { name: size, type: number, integer: true, default: 2, min: 1, max: 8 }
  - { name: tag, type: string, default: "12", options: [{ value: "12" }, { value: "13" }] }
  - { name: db, type: boolean, default: true }
  - { name: tags, type: list, default: [a, b] }
  - { name: free, type: string, pattern: "[a-z]+" }
`;
export const parse = (section: string, files: Record<string, string> = {}) =>
  parseTemplate({ 'template.yaml': head + section, ...files });
export const told = (faults: ReturnType<typeof parseTemplate>['faults']) =>
  faults.map((f) => `${f.file}:${f.line}:${f.column} ${f.message}${f.hint ? ` (${f.hint})` : ''}`);
export function render(template: TemplateContent, given: Record<string, unknown> = {}) {
  const checked = checkParameters(template.parameters, { free: 'x', ...given });
  expect(checked).not.toHaveProperty('issues');
  return renderTemplate(template, (checked as { values: ParameterValues }).values, context);
}
export function rendered(
  section: string,
  files: Record<string, string> = {},
  given: Record<string, unknown> = {},
) {
  const { template, faults } = parse(section, files);
  expect(told(faults)).toEqual([]);
  const result = render(template!, given);
  if ('faults' in result) throw new Error(JSON.stringify(result.faults));
  return result.ok;
}
