import type { Parameter, ParameterValue, ParameterValues } from '@cde/api/template-parameters.ts';
import { useId } from 'react';
import { Field } from '../ui/field.tsx';
import { type Draft, immutableState, limits, maxRadios, type Problems } from './parameter-form.ts';

interface Props {
  parameters: readonly Parameter[];
  draft: Draft;
  problems: Problems;
  onChange: (name: string, value: Draft[string]) => void;
  /** The values of an existing workspace, whose immutable parameters are read-only. */
  existing?: ParameterValues;
}

/** A control for each parameter, by its type and options. */
export function ParameterFields({ parameters, draft, problems, onChange, existing = {} }: Props) {
  return parameters.map((parameter) => (
    <ParameterField
      key={parameter.name}
      parameter={parameter}
      value={draft[parameter.name]}
      problem={problems[parameter.name]}
      state={immutableState(parameter, existing)}
      current={existing[parameter.name]}
      onChange={(value) => onChange(parameter.name, value)}
    />
  ));
}

function ParameterField({
  parameter,
  value,
  problem,
  state,
  current,
  onChange,
}: {
  parameter: Parameter;
  value: Draft[string] | undefined;
  problem: string | undefined;
  state: ReturnType<typeof immutableState>;
  current: ParameterValue | undefined;
  onChange: (value: Draft[string]) => void;
}) {
  const label = parameter.title ?? parameter.name;
  const disabled = state === 'fixed';
  const hints = [parameter.description, wanted(parameter), immutableHint(parameter, state, current)];
  const hint = hints.filter(Boolean).join(' ') || undefined;
  const text = typeof value === 'string' ? value : '';

  if (parameter.type === 'boolean')
    return (
      <Choice label={label} hint={hint} problem={problem}>
        {(aria) => (
          <input
            {...aria}
            type="checkbox"
            checked={value === true}
            disabled={disabled}
            onChange={(event) => onChange(event.target.checked)}
          />
        )}
      </Choice>
    );
  if (parameter.type === 'list' && parameter.options) {
    const chosen = Array.isArray(value) ? value : [];
    return (
      <Group legend={label} hint={hint} problem={problem} role="group">
        {parameter.options.map((option) => (
          <label key={option.value} className="choice">
            <input
              type="checkbox"
              disabled={disabled}
              checked={chosen.includes(option.value)}
              onChange={(event) =>
                // In the order of the options, not of the clicks.
                onChange(
                  parameter
                    .options!.map((known) => known.value)
                    .filter((known) =>
                      known === option.value ? event.target.checked : chosen.includes(known),
                    ),
                )
              }
            />
            <OptionText {...option} />
          </label>
        ))}
      </Group>
    );
  }
  if (parameter.type === 'list')
    return (
      <Field label={label} hint={hint} error={problem}>
        {(aria) => (
          <textarea
            {...aria}
            name={parameter.name}
            rows={Math.min(8, Math.max(3, text.split('\n').length + 1))}
            value={text}
            disabled={disabled}
            spellCheck={false}
            onChange={(event) => onChange(event.target.value)}
          />
        )}
      </Field>
    );
  if (parameter.options && parameter.options.length <= maxRadios)
    return (
      <Group legend={label} hint={hint} problem={problem} role="radiogroup">
        {parameter.options.map((option) => (
          <label key={option.value} className="choice">
            <input
              type="radio"
              name={parameter.name}
              disabled={disabled}
              checked={text === String(option.value)}
              onChange={() => onChange(String(option.value))}
            />
            <OptionText {...option} />
          </label>
        ))}
      </Group>
    );
  if (parameter.options)
    return (
      <Field label={label} hint={hint} error={problem}>
        {(aria) => (
          <select
            {...aria}
            name={parameter.name}
            value={text}
            disabled={disabled}
            onChange={(event) => onChange(event.target.value)}
          >
            {text === '' && <option value="">Choose…</option>}
            {state === 'replaceable' && text === String(current) && (
              <option value={text}>{text} (no longer offered)</option>
            )}
            {parameter.options!.map((option) => (
              <option key={option.value} value={String(option.value)}>
                {option.title ?? option.value}
                {option.description ? ` — ${option.description}` : ''}
              </option>
            ))}
          </select>
        )}
      </Field>
    );
  return (
    <Field label={label} hint={hint} error={problem}>
      {(aria) => (
        <input
          {...aria}
          name={parameter.name}
          // Not type=number: the mouse wheel changes it by accident, and invalid input reads as empty.
          inputMode={parameter.type === 'number' ? (parameter.integer ? 'numeric' : 'decimal') : undefined}
          value={text}
          disabled={disabled}
          placeholder={parameter.default === undefined ? undefined : String(parameter.default)}
          autoComplete="off"
          spellCheck={false}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
    </Field>
  );
}

function immutableHint(
  parameter: Parameter,
  state: ReturnType<typeof immutableState>,
  current: ParameterValue | undefined,
): string | undefined {
  if (!parameter.immutable) return undefined;
  if (state === 'fixed') return 'Set at creation; cannot be changed.';
  if (state === 'mutable') return 'It cannot be changed later.';
  return `Currently ${[current].flat().join(', ')}, which this version no longer offers. It stays unless you choose another one.`;
}

function wanted(parameter: Parameter): string | undefined {
  switch (parameter.type) {
    case 'number':
      if (parameter.options || (parameter.min === undefined && parameter.max === undefined)) return undefined;
      return `${limits(parameter.min, parameter.max)}${parameter.integer ? ', whole numbers' : ''}.`;
    case 'list':
      return parameter.options
        ? undefined
        : `One per line, ${limits(undefined, parameter.maxItems).toLowerCase()}.`;
    default:
      return undefined;
  }
}

function OptionText({
  value,
  title,
  description,
}: {
  value: string | number;
  title?: string;
  description?: string;
}) {
  return (
    <span>
      {title ?? value}
      {description && <span className="hint">{description}</span>}
    </span>
  );
}

function Group({
  legend,
  hint,
  problem,
  role,
  children,
}: {
  legend: string;
  hint: string | undefined;
  problem: string | undefined;
  role: 'group' | 'radiogroup';
  children: React.ReactNode;
}) {
  const id = useId();
  return (
    <fieldset
      className="field"
      role={role}
      aria-describedby={`${id}-hint ${id}-error`}
      aria-invalid={problem ? true : undefined}
    >
      <legend className="legend">{legend}</legend>
      <div className="choices">{children}</div>
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {problem && (
        <p className="field-error" id={`${id}-error`}>
          {problem}
        </p>
      )}
    </fieldset>
  );
}

function Choice({
  label,
  hint,
  problem,
  children,
}: {
  label: string;
  hint: string | undefined;
  problem: string | undefined;
  children: (aria: { id: string; 'aria-describedby': string }) => React.ReactNode;
}) {
  const id = useId();
  return (
    <div className="field">
      <label className="choice" htmlFor={id}>
        {children({ id, 'aria-describedby': `${id}-hint` })}
        <span className="legend">{label}</span>
      </label>
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {problem && <p className="field-error">{problem}</p>}
    </div>
  );
}
