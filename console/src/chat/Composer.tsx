import { useState } from 'react'
import type { KeyboardEvent } from 'react'
import { useResource } from '../api'
import type { Assistant } from '../types'
import { Icon } from '../ui/parts'
import type { SendOptions } from './Thread'

const LONGEST = 32_000
const ID = 'message'
const DEFAULT_ASSISTANT = 'default'
let fill: (text: string) => void = () => {}

/** Put a text into the composer, for the person to send. */
export function fillComposer(text: string): void {
  fill(text)
  document.getElementById(ID)?.focus()
}

export function Composer(props: {
  isBusy: boolean
  /** The assistant of the conversation; null before its first message. */
  assistant: string | null
  onSend: (text: string, options: SendOptions) => void
  onStop: () => void
}) {
  const [text, setText] = useState('')
  const [options, setOptions] = useState<SendOptions>({})
  fill = setText
  const send = () => {
    if (!text.trim() || props.isBusy) return
    props.onSend(text, options)
    setText('')
    setOptions({ ...options, artifact_generation: false })
  }
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.nativeEvent.isComposing) {
      event.preventDefault()
      send()
    }
  }
  return (
    <form
      className="composer"
      onSubmit={(event) => {
        event.preventDefault()
        send()
      }}
    >
      <label htmlFor={ID} className="visually-hidden">
        Message
      </label>
      <textarea
        id={ID}
        value={text}
        rows={1}
        maxLength={LONGEST}
        placeholder="Message the assistant"
        autoFocus
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
      />
      <div className="composer-foot">
        <Choices options={options} assistant={props.assistant} onChange={setOptions} />
        <span className="hint keys">
          {props.isBusy ? 'Stop the turn, or wait for its end' : 'Enter sends, Shift+Enter starts a line'}
        </span>
        {props.isBusy ? (
          <button type="button" className="stop" onClick={props.onStop}>
            Stop
          </button>
        ) : (
          <button type="submit" className="primary" disabled={!text.trim()}>
            Send <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  )
}

/** Which assistant begins the conversation, which model answers, and whether the turn writes a document. */
function Choices(props: {
  options: SendOptions
  assistant: string | null
  onChange: (options: SendOptions) => void
}) {
  const { options, onChange } = props
  const { data } = useResource<{ items: Assistant[] }>('assistants')
  const assistants = data?.items ?? []
  const name = props.assistant ?? options.assistant ?? DEFAULT_ASSISTANT
  const models = assistants.find((each) => each.name === name)?.models ?? []
  return (
    <div className="choices">
      {props.assistant === null && assistants.length > 1 && (
        <select
          aria-label="Assistant"
          value={name}
          onChange={(event) => onChange({ ...options, assistant: event.target.value, model: undefined })}
        >
          {assistants.map((assistant) => (
            <option key={assistant.name} value={assistant.name}>
              {assistant.title}
            </option>
          ))}
        </select>
      )}
      {models.length > 0 && (
        <select
          aria-label="Model"
          value={options.model ?? ''}
          onChange={(event) => onChange({ ...options, model: event.target.value || undefined })}
        >
          <option value="">Usual model</option>
          {models.map((model) => (
            <option key={model}>{model}</option>
          ))}
        </select>
      )}
      <label className="check">
        <input
          type="checkbox"
          checked={options.artifact_generation ?? false}
          onChange={(event) => onChange({ ...options, artifact_generation: event.target.checked })}
        />
        Write a document
      </label>
    </div>
  )
}
