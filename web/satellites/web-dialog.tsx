import { WildcardName } from '@cde/api/names.ts';
import { type Satellite, type SatelliteWeb, setSatelliteWeb } from '@cde/api/satellites.ts';
import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { CallError, call } from '../client.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Field } from '../ui/field.tsx';
import { Icon } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { sayDone } from '../ui/toast.tsx';

/** Describes what a satellite serves to browsers. */
export function webWords(web: SatelliteWeb): string {
  return web.portHost === null
    ? 'Serves terminals to browsers'
    : `Serves terminals to browsers, and ports under ${web.portHost}`;
}

/** Allows a satellite to serve browsers, or forbids it. */
export function WebDialog({ satellite, onClose }: { satellite: Satellite; onClose: () => void }) {
  const [on, setOn] = useState(satellite.web !== null);
  const [fault, setFault] = useState<string>();
  const save = useMutation({
    mutationFn: (web: SatelliteWeb | null) =>
      call(setSatelliteWeb, { params: { satellite: satellite.id }, body: { web } }),
    onSuccess({ name, web }) {
      sayDone(
        web
          ? `${name} serves browsers within 15 seconds.`
          : `${name} stops serving browsers within 15 seconds.`,
      );
      onClose();
    },
    onError(error) {
      if (error instanceof CallError && error.code === 'port-host-taken')
        setFault([error.body.message, error.body.detail].filter(Boolean).join(' '));
    },
  });
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const text = String(new FormData(event.currentTarget).get('portHost') ?? '').trim();
    const portHost = WildcardName.safeParse(text);
    const isFaulty = on && text !== '' && !portHost.success;
    setFault(isFaulty ? 'Enter a wildcard name, for example *.dev.example.com.' : undefined);
    if (!isFaulty) save.mutate(on ? { portHost: portHost.data ?? null } : null);
  }
  return (
    <Dialog title={`Browsers at ${satellite.name}`} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        <label className="choice">
          <input type="checkbox" checked={on} onChange={(event) => setOn(event.target.checked)} />
          Serve terminals and ports to browsers
        </label>
        {on && (
          <>
            <p className="notice">
              <Icon name="warning" />
              <span>
                {satellite.name} can then read the traffic of these terminals and ports, but not of the
                sessions that it relays. Allow this only on machines that you trust with that.
              </span>
            </p>
            <Field
              label="Wildcard name of its ports"
              optional
              error={fault}
              hint="It must resolve to the satellite, which needs a certificate for it. Without it, only terminals are served."
            >
              {(aria) => (
                <input
                  {...aria}
                  name="portHost"
                  defaultValue={satellite.web?.portHost ?? ''}
                  placeholder={`*.${satellite.name}.dev.example.com`}
                  maxLength={200}
                  autoComplete="off"
                  autoCapitalize="none"
                  spellCheck={false}
                />
              )}
            </Field>
          </>
        )}
        {fault === undefined && <Problem error={save.error} />}
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button primary" disabled={save.isPending}>
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}
