import {
  type CleanupPolicy,
  getCleanupPolicy,
  type StoredCleanupPolicy,
  setCleanupPolicy,
} from '@cde/api/cleanup.ts';
import { parseDuration, writeDuration } from '@cde/api/durations.ts';
import { boundOnDefault } from '@cde/api/idle-text.ts';
import { queryOptions, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { type ChangeEvent, type FormEvent, useRef, useState } from 'react';
import { CallError, call } from '../client.ts';
import { Field } from '../ui/field.tsx';
import { Spinner } from '../ui/icons.tsx';
import { faultsOf } from '../ui/issues.ts';
import { Problem } from '../ui/problem.tsx';
import { sayDone } from '../ui/toast.tsx';

const policyQuery = queryOptions({
  queryKey: ['cleanup-policy'],
  queryFn: ({ signal }) => call(getCleanupPolicy, { signal }),
});

type DurationField =
  | 'defaultStopAfterSeconds'
  | 'minStopAfterSeconds'
  | 'maxStopAfterSeconds'
  | 'maxRunSeconds'
  | 'maxLeaseSeconds';
const durations: [DurationField, label: string, hint: string][] = [
  [
    'defaultStopAfterSeconds',
    'Stop after, by default',
    'Stop after this long without activity, if the template does not say. Empty: never.',
  ],
  ['minStopAfterSeconds', 'Shortest choice', 'What a workspace can choose at least. Empty: no bound.'],
  ['maxStopAfterSeconds', 'Longest choice', 'If set, a workspace cannot choose never.'],
  [
    'maxRunSeconds',
    'Maximum run time',
    'Stops a workspace this long after its start, whatever runs in it. Empty: no bound.',
  ],
  ['maxLeaseSeconds', 'Longest keep-awake', 'How long one keep-awake can last.'],
];

const placeholders: Partial<Record<DurationField, string>> = {
  defaultStopAfterSeconds: 'never',
  maxLeaseSeconds: '24h',
};

type NumberField =
  | 'maxNeverStopDays'
  | 'dormantAfterDays'
  | 'archiveAfterDays'
  | 'deleteAfterDays'
  | 'deleteNoticeDays'
  | 'brakePercent';
const numbers: [NumberField, label: string, hint: string][] = [
  ['maxNeverStopDays', 'Longest never-stop, in days', '0: never-stop is not available.'],
  [
    'dormantAfterDays',
    'Dormant after days',
    'After this many days without a person, compute and namespace are removed; the home stays. Empty: never.',
  ],
  [
    'archiveAfterDays',
    'Archived after days',
    'After this many days without a person, lists leave a workspace out. Empty: never.',
  ],
  [
    'deleteAfterDays',
    'Deleted after days',
    'After this many days without a person, a workspace is deleted; its home is retained for some time. Empty: never.',
  ],
  ['deleteNoticeDays', 'Notice of a deletion, in days', 'Deletions are announced at least this long before.'],
  [
    'brakePercent',
    'Brake, in percent',
    'At most this share of the running workspaces stops within 10 minutes, and at most this share of all workspaces is deleted within a day. Five are always allowed.',
  ],
];
const optionalNumbers: NumberField[] = ['dormantAfterDays', 'archiveAfterDays', 'deleteAfterDays'];

/** The bounds of the installation, as a form for owners. */
export function PolicyPanel({ canChange }: { canChange: boolean }) {
  const query = useQuery(policyQuery);
  // What the reader has begun to change stays, while the query follows the changes of others.
  const [edited, setEdited] = useState<StoredCleanupPolicy>();
  const shown = edited ?? query.data;
  return (
    <section className="panel" aria-labelledby="policy-title">
      <header>
        <h2 id="policy-title">Bounds</h2>
      </header>
      <div className="body">
        <Problem error={query.error} retry={() => query.refetch()} />
        {query.isPending && !query.error && (
          <p className="row muted" role="status">
            <Spinner /> Loading…
          </p>
        )}
        {shown && (
          <PolicyForm
            key={shown.etag}
            policy={shown}
            canChange={canChange}
            onEdit={() => setEdited((before) => before ?? shown)}
            onSaved={() => setEdited(undefined)}
            reload={async () => {
              await query.refetch();
              setEdited(undefined);
            }}
          />
        )}
      </div>
    </section>
  );
}

function PolicyForm({
  policy,
  canChange,
  onEdit,
  onSaved,
  reload,
}: {
  policy: StoredCleanupPolicy;
  canChange: boolean;
  onEdit: () => void;
  onSaved: () => void;
  reload: () => Promise<unknown>;
}) {
  const client = useQueryClient();
  const [faults, setFaults] = useState<Partial<Record<string, string>>>({});
  const save = useMutation({
    mutationFn: (body: CleanupPolicy) => call(setCleanupPolicy, { body: { ...body, etag: policy.etag } }),
    onSuccess: (after) => {
      client.setQueryData(policyQuery.queryKey, after);
      onSaved();
      sayDone('The bounds are saved. They take effect within a minute.');
    },
    onError: (error) =>
      setFaults(faultsOf(error, (path) => (path === 'webhook.secret' ? 'secret' : path.split('.')[0]!))),
  });
  const isConflict = save.error instanceof CallError && save.error.body.code === 'cleanup-policy-changed';
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const { policy: next, faults: found } = readForm(new FormData(event.currentTarget));
    setFaults(found);
    if (Object.keys(found).length === 0) save.mutate(next);
  }
  return (
    <form onSubmit={submit} onChange={onEdit} noValidate>
      <fieldset className="stack tight" disabled={!canChange || save.isPending}>
        {durations.map(([name, label, hint]) => (
          <Field
            key={name}
            label={label}
            hint={name === 'defaultStopAfterSeconds' ? `${hint}${boundText(policy)}` : hint}
            error={faults[name]}
          >
            {(aria) => (
              <input
                {...aria}
                name={name}
                className="short-input"
                autoComplete="off"
                placeholder={placeholders[name] ?? 'none'}
                defaultValue={policy[name] === null ? '' : writeDuration(policy[name])}
              />
            )}
          </Field>
        ))}
        {numbers.map(([name, label, hint]) => (
          <Field key={name} label={label} hint={hint} error={faults[name]}>
            {(aria) => (
              <input
                {...aria}
                name={name}
                className="short-input"
                inputMode="numeric"
                autoComplete="off"
                placeholder={optionalNumbers.includes(name) ? 'never' : undefined}
                defaultValue={policy[name] ?? ''}
              />
            )}
          </Field>
        ))}
        <Field
          label="Holidays"
          optional
          hint="An iCalendar file. On its days no workspace starts by schedule."
          error={faults.holidays}
        >
          {(aria) => <Holidays aria={aria} text={policy.holidays} />}
        </Field>
        <Field
          label="Webhook"
          optional
          hint="Receives warnings, stops and announced deletions."
          error={faults.webhook}
        >
          {(aria) => (
            <input
              {...aria}
              name="webhook"
              type="url"
              placeholder="https://"
              autoComplete="off"
              defaultValue={policy.webhook?.url ?? ''}
            />
          )}
        </Field>
        <Field
          label="Secret of the webhook"
          optional
          hint="Signs deliveries. It is never shown; left empty, it stays as it is."
          error={faults.secret}
        >
          {(aria) => <input {...aria} name="secret" type="password" autoComplete="new-password" />}
        </Field>
        {Object.keys(faults).length === 0 && <Problem error={save.error} />}
        {isConflict && (
          <button type="button" className="button small" onClick={reload}>
            Discard mine, show theirs
          </button>
        )}
        {canChange ? (
          <div className="form-foot">
            <button type="submit" className="button primary">
              Save
            </button>
          </div>
        ) : (
          <p className="hint">An owner of this installation changes them.</p>
        )}
      </fieldset>
    </form>
  );
}

function boundText(policy: CleanupPolicy): string {
  const bound = boundOnDefault(policy);
  if (!bound) return '';
  return ` Now ${bound.text} by the ${bound.setting === 'maxStopAfterSeconds' ? 'longest' : 'shortest'} choice.`;
}

/** A text to paste into, or to fill from a file. */
function Holidays({ aria, text }: { aria: object; text: string }) {
  const area = useRef<HTMLTextAreaElement>(null);
  async function take(event: ChangeEvent<HTMLInputElement>) {
    const [file] = event.target.files ?? [];
    if (file && area.current) area.current.value = await file.text();
  }
  return (
    <>
      <textarea
        {...aria}
        ref={area}
        name="holidays"
        rows={3}
        spellCheck={false}
        placeholder="BEGIN:VCALENDAR"
        defaultValue={text}
      />
      <input
        type="file"
        accept=".ics,text/calendar"
        aria-label="File of the holidays"
        className="file"
        onChange={take}
      />
    </>
  );
}

function readForm(data: FormData): { policy: CleanupPolicy; faults: Record<string, string> } {
  const faults: Record<string, string> = {};
  const text = (name: string) => String(data.get(name) ?? '').trim();
  const duration = (name: DurationField): number | null => {
    if (text(name) === '' && name !== 'maxLeaseSeconds') return null;
    const seconds = parseDuration(text(name));
    if (seconds === null) faults[name] = 'Write a length of time, such as 90m, 4h or 7d.';
    return seconds;
  };
  const count = (name: NumberField): number | null => {
    if (text(name) === '' && optionalNumbers.includes(name)) return null;
    // Up to the largest safe integer; the server knows the bounds.
    if (!/^\d{1,15}$/.test(text(name))) faults[name] = 'Write a whole number.';
    return Number(text(name));
  };
  const url = text('webhook');
  const secret = text('secret');
  if (secret !== '' && secret.length < 16) faults.secret = 'Write at least 16 characters.';
  return {
    faults,
    policy: {
      defaultStopAfterSeconds: duration('defaultStopAfterSeconds'),
      minStopAfterSeconds: duration('minStopAfterSeconds'),
      maxStopAfterSeconds: duration('maxStopAfterSeconds'),
      maxRunSeconds: duration('maxRunSeconds'),
      maxLeaseSeconds: duration('maxLeaseSeconds') ?? 0,
      maxNeverStopDays: count('maxNeverStopDays') ?? 0,
      dormantAfterDays: count('dormantAfterDays'),
      archiveAfterDays: count('archiveAfterDays'),
      deleteAfterDays: count('deleteAfterDays'),
      deleteNoticeDays: count('deleteNoticeDays') ?? 0,
      brakePercent: count('brakePercent') ?? 0,
      // Forms end lines by CR LF, as iCalendar does.
      holidays: String(data.get('holidays') ?? '').trim(),
      webhook: url === '' ? null : { url, ...(secret && { secret }) },
    },
  };
}
