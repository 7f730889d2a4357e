/**
 * Markdown as React elements. Text of a model never becomes HTML: tags are shown as text, links lead to web and mail
 * addresses only, and pictures are links.
 */
import { lexer } from 'marked'
import type { Token, Tokens } from 'marked'
import { Fragment, memo } from 'react'
import type { ReactNode } from 'react'

export const Markdown = memo(function Markdown({ text }: { text: string }) {
  return <div className="markdown">{blocks(lexer(text))}</div>
})

function blocks(tokens: Token[] | undefined): ReactNode {
  return tokens?.map((token, index) => <Fragment key={index}>{block(token)}</Fragment>)
}

function block(token: Token): ReactNode {
  switch (token.type) {
    case 'space':
    case 'def':
      return null
    case 'heading': {
      // The page has the levels above.
      const Heading = (['h3', 'h4', 'h5', 'h6'] as const)[Math.min((token as Tokens.Heading).depth, 4) - 1] ?? 'h6'
      return <Heading>{blocks(token.tokens)}</Heading>
    }
    case 'paragraph':
      return <p>{blocks(token.tokens)}</p>
    case 'blockquote':
      return <blockquote>{blocks(token.tokens)}</blockquote>
    case 'hr':
      return <hr />
    case 'code':
      return (
        <pre tabIndex={0} aria-label="Code">
          <code>{token.text}</code>
        </pre>
      )
    case 'list':
      return list(token as Tokens.List)
    case 'table':
      return table(token as Tokens.Table)
    case 'strong':
      return <strong>{blocks(token.tokens)}</strong>
    case 'em':
      return <em>{blocks(token.tokens)}</em>
    case 'del':
      return <del>{blocks(token.tokens)}</del>
    case 'codespan':
      return <code>{token.text}</code>
    case 'br':
      return <br />
    case 'link':
      return link(token.href, blocks(token.tokens))
    case 'image':
      return link(token.href, token.text || 'picture')
    case 'text':
      return token.tokens ? blocks(token.tokens) : withCharacters(token.text)
    case 'escape':
      return token.text
    case 'checkbox':
      return <input type="checkbox" checked={token.checked === true} disabled aria-label={token.checked ? 'done' : 'to do'} />
    default:
      return token.raw
  }
}

/** The text with the characters that entities such as `&amp;` stand for. */
function withCharacters(text: string): string {
  if (!text.includes('&')) return text
  const html = `<i>${text.replaceAll('<', '&lt;')}</i>` // an element keeps white space at the edges
  return new DOMParser().parseFromString(html, 'text/html').body.textContent
}

function list(token: Tokens.List): ReactNode {
  const items = token.items.map((item, index) => <li key={index}>{blocks(item.tokens)}</li>)
  return token.ordered ? <ol start={token.start === '' ? 1 : token.start}>{items}</ol> : <ul>{items}</ul>
}

function table(token: Tokens.Table): ReactNode {
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label="Table">
      <table>
        <thead>
          <tr>
            {token.header.map((cell, index) => (
              <th key={index}>{blocks(cell.tokens)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {token.rows.map((row, number) => (
            <tr key={number}>
              {row.map((cell, index) => (
                <td key={index}>{blocks(cell.tokens)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function link(href: string, content: ReactNode): ReactNode {
  if (!/^(https?:|mailto:)/i.test(href)) return content
  return (
    <a href={href} target="_blank" rel="noopener noreferrer">
      {content}
    </a>
  )
}
