import { useMutation } from '@tanstack/react-query';
import { type FormEvent, type ReactNode, useState } from 'react';
import { Dialog } from './dialog.tsx';
import { Field } from './field.tsx';
import { Problem } from './problem.tsx';

/** Confirms and runs an action that cannot be undone, and shows why it failed. */
export function ConfirmDialog({
  title,
  children,
  keep,
  confirm,
  typed: wanted,
  act,
  onClose,
}: {
  title: string;
  children: ReactNode;
  /** The label of the button that cancels: `Keep it`. */
  keep: string;
  confirm: string;
  /** A word to type first, if data is lost for good. */
  typed?: string;
  act: () => Promise<unknown>;
  onClose: () => void;
}) {
  const [typed, setTyped] = useState('');
  const run = useMutation({ mutationFn: act, onSuccess: onClose });
  const sure = wanted === undefined || typed === wanted;
  function submit(event: FormEvent) {
    event.preventDefault();
    if (sure) run.mutate();
  }
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={submit}>
        <p>{children}</p>
        {wanted !== undefined && <TypedWord word={wanted} to="go on" value={typed} onChange={setTyped} />}
        <Problem error={run.error} />
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            {keep}
          </button>
          <button type="submit" className="button danger filled" disabled={!sure || run.isPending}>
            {confirm}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** A word that must be typed before something is lost for good. */
export function TypedWord({
  word,
  to,
  value,
  onChange,
}: {
  word: string;
  /** The purpose, for the label: `discard its home`. */
  to: string;
  value: string;
  onChange: (value: string) => void;
}) {
  return (
    <Field
      label={
        <>
          Type <code>{word}</code> to {to}
        </>
      }
    >
      {(aria) => (
        <input
          {...aria}
          value={value}
          onChange={(event) => onChange(event.target.value)}
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          // biome-ignore lint/a11y/noAutofocus: the only field of its dialog
          autoFocus
        />
      )}
    </Field>
  );
}
