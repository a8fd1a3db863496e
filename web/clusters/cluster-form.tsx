import { addCluster, type Cluster, ClusterName, updateCluster } from '@cde/api/clusters.ts';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type ChangeEvent, type FormEvent, useRef, useState } from 'react';
import { CallError, call, newIdempotencyKey } from '../client.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Field, type FieldAria } from '../ui/field.tsx';
import { Problem } from '../ui/problem.tsx';
import { sayDone } from '../ui/toast.tsx';
import { readLabels, writeLabels } from './labels.ts';

type FieldName = 'name' | 'kubeconfig' | 'region' | 'labels' | 'publicEndpoint';
type Faults = Partial<Record<FieldName, string>>;
const fieldNames: readonly string[] = ['name', 'kubeconfig', 'region', 'labels', 'publicEndpoint'];

/** The server's errors by field; empty if none of them is about a field. */
function faultsOf(error: unknown): Faults {
  if (!(error instanceof CallError)) return {};
  const { code, message, detail, hint, issues = [] } = error.body;
  if (code === 'cluster-name-taken') return { name: message };
  if (code === 'cluster-credentials-invalid')
    return { kubeconfig: [message, detail, hint].filter(Boolean).join(' ') };
  const placed = issues.map((issue) => [issue.path.split('.')[0] ?? '', issue.message] as const);
  return Object.fromEntries(placed.filter(([field]) => fieldNames.includes(field)));
}

/** Adds a cluster, or changes one: its region, its labels, how developers reach it, its credentials. */
export function ClusterForm({ cluster, onClose }: { cluster?: Cluster; onClose: () => void }) {
  const client = useQueryClient();
  const [faults, setFaults] = useState<Faults>({});
  const [inCluster, setInCluster] = useState(false);
  const send = useMutation({
    mutationFn: ({ name, ...settings }: Settings) =>
      cluster
        ? call(updateCluster, { params: { cluster: cluster.id }, body: settings })
        : call(addCluster, { body: { name, ...settings }, idempotencyKey: newIdempotencyKey() }),
    onSuccess: async (made) => {
      await client.invalidateQueries({ queryKey: ['clusters'] });
      void client.invalidateQueries({ queryKey: ['cluster-checks', made.name] });
      sayDone(
        cluster
          ? `Changed ${made.name}.`
          : `Added ${made.name}: Kubernetes ${made.version} at ${made.endpoint}.`,
      );
      onClose();
    },
    onError: (error) => setFaults(faultsOf(error)),
  });
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const text = (field: string) => String(data.get(field) ?? '').trim();
    const found: Faults = {};
    const name = cluster?.name ?? text('name');
    if (!cluster) {
      const parsed = ClusterName.safeParse(name);
      if (!parsed.success) found.name = `The name is not valid: ${parsed.error.issues[0]?.message}.`;
    }
    const labels = readLabels(text('labels'));
    if (labels.problem !== undefined) found.labels = labels.problem;
    const kubeconfig = text('kubeconfig');
    if (!cluster && !inCluster && kubeconfig === '')
      found.kubeconfig = 'Paste a kubeconfig, or choose its file.';
    setFaults(found);
    if (Object.keys(found).length > 0 || labels.problem !== undefined) return;
    send.mutate({
      name,
      region: text('region'),
      labels: labels.labels,
      publicEndpoint: text('publicEndpoint') || null,
      ...(data.get('isDefault') === 'on' && { isDefault: true }),
      ...(inCluster ? { inCluster: true } : kubeconfig !== '' && { kubeconfig }),
    });
  }
  const credentials = inCluster ? (
    faults.kubeconfig && <p className="field-error">{faults.kubeconfig}</p>
  ) : (
    <Field
      label={cluster ? 'New kubeconfig' : 'Kubeconfig'}
      optional={cluster !== undefined}
      error={faults.kubeconfig}
      hint={
        <>
          With its credentials in it, a token or a client certificate:{' '}
          <code>kubectl config view --raw --flatten --minify</code> prints one.{' '}
          {cluster ? 'Leave it empty to keep the current credentials.' : 'It is stored encrypted.'}
        </>
      }
    >
      {(aria) => <Kubeconfig aria={aria} />}
    </Field>
  );
  return (
    <Dialog title={cluster ? `Change ${cluster.name}` : 'Add a cluster'} onClose={onClose} wide>
      <form onSubmit={submit} noValidate>
        {!cluster && (
          <Field label="Name" hint="The name that templates use, for example eu." error={faults.name}>
            {(aria) => <input {...aria} name="name" maxLength={40} {...plain} />}
          </Field>
        )}
        {!cluster && (
          <fieldset className="field">
            <legend className="legend">Credentials</legend>
            <div className="choices">
              <label className="choice">
                <input type="radio" checked={!inCluster} onChange={() => setInCluster(false)} />
                <span>A kubeconfig</span>
              </label>
              <label className="choice">
                <input type="radio" checked={inCluster} onChange={() => setInCluster(true)} />
                <span>
                  The cluster that the server runs in
                  <span className="hint">Uses the service account of the server's pod.</span>
                </span>
              </label>
            </div>
          </fieldset>
        )}
        {!cluster && credentials}
        <Field label="Region" optional error={faults.region} hint="For example: Frankfurt.">
          {(aria) => (
            <input {...aria} name="region" defaultValue={cluster?.region} maxLength={80} {...plain} />
          )}
        </Field>
        <Field
          label="Labels"
          optional
          error={faults.labels}
          hint="One name=value per line. Templates can select clusters by label."
        >
          {(aria) => (
            <textarea
              {...aria}
              name="labels"
              rows={2}
              defaultValue={cluster && writeLabels(cluster.labels)}
              placeholder="gpu=a100"
              {...plain}
            />
          )}
        </Field>
        <Field
          label="Address for developers"
          optional
          error={faults.publicEndpoint}
          hint="The API server's URL for kubectl on developers' machines, if it differs from the kubeconfig's."
        >
          {(aria) => (
            <input
              {...aria}
              name="publicEndpoint"
              type="url"
              defaultValue={cluster?.publicEndpoint ?? ''}
              placeholder="https://"
              {...plain}
            />
          )}
        </Field>
        {cluster && credentials}
        {!cluster?.isDefault && (
          <label className="choice">
            <input type="checkbox" name="isDefault" />
            <span>
              Default cluster
              <span className="hint">
                Used by templates that name no cluster.
                {!cluster && ' The first cluster is always the default.'}
              </span>
            </span>
          </label>
        )}
        {Object.keys(faults).length === 0 && <Problem error={send.error} />}
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button primary" disabled={send.isPending}>
            {send.isPending ? 'Connecting…' : cluster ? 'Change' : 'Add'}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

interface Settings {
  name: string;
  region: string;
  labels: Record<string, string>;
  publicEndpoint: string | null;
  isDefault?: boolean;
  kubeconfig?: string;
  inCluster?: boolean;
}

const plain = { autoComplete: 'off', autoCapitalize: 'none', spellCheck: false } as const;

/** A text to paste into, or to fill from a file. */
function Kubeconfig({ aria }: { aria: FieldAria }) {
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
        name="kubeconfig"
        rows={6}
        className="kubeconfig"
        placeholder="apiVersion: v1&#10;kind: Config"
        {...plain}
      />
      <input type="file" aria-label="File of the kubeconfig" className="file" onChange={take} />
    </>
  );
}
