import { listTemplates } from '@cde/api/templates.ts';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { callAll } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { TemplateIcon } from './template-icon.tsx';
import '../workspaces/workspaces.css';

export function TemplatesPage() {
  useTitle('Templates');
  const templates = useQuery({
    queryKey: ['templates'],
    queryFn: ({ signal }) => callAll(listTemplates, { signal }),
  });
  return (
    <main id="main">
      <div className="page-head">
        <h1>Templates</h1>
        <p>
          What workspaces are made from. A template admin publishes a folder with{' '}
          <code>cde template push FOLDER</code>.
        </p>
      </div>
      <Problem error={templates.error} retry={() => templates.refetch()} />
      {templates.data?.length === 0 && (
        <div className="panel empty">
          <strong>No templates yet</strong>
        </div>
      )}
      {templates.data && templates.data.length > 0 && (
        <div className="panel table-scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Template</th>
                <th scope="col">Provider</th>
                <th scope="col">Active version</th>
                <th scope="col">Workspaces</th>
                <th scope="col">Updated</th>
                <th scope="col">
                  <span className="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {templates.data.map((template) => (
                <tr key={template.id}>
                  <td>
                    <span className="template-cell">
                      <TemplateIcon template={template} />
                      <span>
                        <Link to="/templates/$template" params={{ template: template.name }}>
                          <strong>{template.title || template.name}</strong>
                        </Link>
                        <span className="hint">{template.description}</span>
                      </span>
                    </span>
                  </td>
                  <td>{template.provider}</td>
                  <td>v{template.activeVersion.number}</td>
                  <td>{template.workspaces}</td>
                  <td className="muted nowrap">
                    <Ago at={template.updatedAt} />
                  </td>
                  <td className="actions">
                    <Link
                      className="button small"
                      to="/workspaces/new"
                      search={{ template: template.name }}
                      aria-label={`New workspace from ${template.name}`}
                    >
                      New workspace
                    </Link>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </main>
  );
}
