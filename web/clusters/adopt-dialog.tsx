import { adoptOrphan, type Orphan } from '@cde/api/clusters.ts';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import type { FormEvent } from 'react';
import { call } from '../client.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Field } from '../ui/field.tsx';
import { day } from '../ui/format.ts';
import { Problem } from '../ui/problem.tsx';

/** Makes an orphaned home a retained home of a user, who can then restore it. */
export function AdoptDialog({ orphan, onClose }: { orphan: Orphan; onClose: () => void }) {
  const client = useQueryClient();
  const adopt = useMutation({
    mutationFn: (owner: string) =>
      call(adoptOrphan, {
        body: {
          ...(orphan.cluster === null ? { provider: orphan.provider } : { cluster: orphan.cluster }),
          name: orphan.name,
          ...(owner !== '' && { owner }),
        },
      }),
    onSuccess: () =>
      Promise.all([
        client.invalidateQueries({ queryKey: ['orphans'] }),
        client.invalidateQueries({ queryKey: ['homes'] }),
      ]),
  });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const owner = new FormData(event.currentTarget).get('owner');
    adopt.mutate(typeof owner === 'string' ? owner.trim() : '');
  };
  if (adopt.data)
    return (
      <Dialog title={`Adopted ${orphan.name}`} onClose={onClose}>
        <div className="body">
          {adopt.data.items.map((home) => (
            <p key={home.id}>
              The home of {home.owner}/{home.workspace} is retained until {day(home.keptUntil)}. {home.owner}{' '}
              can restore it into a new workspace on the page{' '}
              <Link to="/homes" search={{ owner: home.owner }}>
                Homes
              </Link>
              .
            </p>
          ))}
          <div className="form-foot">
            <button type="button" className="button primary" onClick={onClose}>
              Done
            </button>
          </div>
        </div>
      </Dialog>
    );
  const isNamespace = orphan.kind === 'namespace';
  return (
    <Dialog title={`Adopt ${orphan.name}`} onClose={onClose}>
      <form className="body" onSubmit={submit}>
        <p>
          {isNamespace
            ? 'This deletes the namespace and all that runs there, and retains its home for a user, who can restore it into a new workspace.'
            : 'This retains the home for a user, who can restore it into a new workspace. What still runs there is stopped.'}
        </p>
        <Field
          label="User"
          optional
          hint="A username. Leave it empty for the user that the home belonged to."
        >
          {(aria) => <input {...aria} name="owner" className="input" maxLength={80} autoComplete="off" />}
        </Field>
        <Problem error={adopt.error} />
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button
            type="submit"
            className={isNamespace ? 'button danger filled' : 'button primary'}
            disabled={adopt.isPending}
          >
            {adopt.isPending ? 'Adopting…' : isNamespace ? 'Delete namespace, retain home' : 'Adopt'}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
