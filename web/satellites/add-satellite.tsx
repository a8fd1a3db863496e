import { addSatellite, SatelliteName } from '@cde/api/satellites.ts';
import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { CallError, call } from '../client.ts';
import { CopyLine } from '../ui/copy.tsx';
import { Dialog } from '../ui/dialog.tsx';
import { Field } from '../ui/field.tsx';
import { Problem } from '../ui/problem.tsx';

/** Adds a satellite, then shows its token, once, in the command that starts it. */
export function AddSatellite({ onClose }: { onClose: () => void }) {
  const [fault, setFault] = useState<string>();
  const add = useMutation({
    mutationFn: (body: { name: string; region: string }) => call(addSatellite, { body }),
    onError: (error) => {
      if (!(error instanceof CallError)) return;
      const issue = error.body.issues?.find(({ path }) => path === 'name');
      if (issue) setFault(issue.message);
      if (error.code === 'satellite-name-taken') setFault(error.body.message);
    },
  });
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const name = SatelliteName.safeParse(String(data.get('name')).trim());
    setFault(name.success ? undefined : `The name is not valid: ${name.error.issues[0]?.message}.`);
    if (name.success) add.mutate({ name: name.data, region: String(data.get('region')).trim() });
  }
  if (add.data) {
    const { token, satellite } = add.data;
    return (
      <Dialog title={`Start ${satellite.name}`} onClose={onClose} wide>
        <div className="body">
          <p>
            Copy its token now. <strong>It is not shown again</strong>: only its hash is kept.
          </p>
          <CopyLine text={token} label="Copy the token" />
          <p>Run this on the satellite's machine, with its public address:</p>
          <CopyLine
            text={`CDE_SATELLITE_TOKEN=${token} cde satellite start --server ${location.origin} --url https://ITS-ADDRESS`}
            label="Copy the command"
          />
          <p className="hint">The satellite shows as online a few seconds after it has started.</p>
          <div className="form-foot">
            <button type="button" className="button primary" onClick={onClose}>
              Done
            </button>
          </div>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title="Add a satellite" onClose={onClose}>
      <form onSubmit={submit} noValidate>
        <Field label="Name" error={fault} hint="Lower-case letters, digits and dashes.">
          {(aria) => (
            <input
              {...aria}
              name="name"
              maxLength={40}
              autoComplete="off"
              autoCapitalize="none"
              spellCheck={false}
            />
          )}
        </Field>
        <Field label="Region" optional hint="For example: Tokyo.">
          {(aria) => <input {...aria} name="region" maxLength={80} autoComplete="off" spellCheck={false} />}
        </Field>
        {fault === undefined && <Problem error={add.error} />}
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button primary" disabled={add.isPending}>
            Add
          </button>
        </div>
      </form>
    </Dialog>
  );
}
