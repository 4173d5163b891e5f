# A post and its author, in the fields of the API that a client cannot do without.
module StatusJson
  module_function

  def of(status)
    {
      id: status.id.to_s, created_at: status.created_at.iso8601(3), visibility: status.visibility, language: status.language,
      uri: status.uri, url: status.url, content: "<p>#{ERB::Util.html_escape(status.text)}</p>",
      sensitive: status.sensitive, spoiler_text: status.spoiler_text, account: account(status.account),
      media_attachments: status.media_attachments.map { |attachment| media(attachment) }
    }
  end

  def account(account)
    { id: account.id.to_s, username: account.username, acct: account.acct, display_name: account.display_name,
      locked: account.locked, bot: false, created_at: account.created_at.iso8601(3), note: account.note,
      url: account.url, uri: account.uri, statuses_count: account.stat.statuses_count }
  end

  def rule(rule)
    translations = rule.translations.order(:language).to_h { |other| [other.language, { text: other.text, hint: other.hint }] }
    { id: rule.id.to_s, text: rule.text, hint: rule.hint, translations: }
  end

  def media(attachment)
    { id: attachment.id.to_s, type: attachment.type, url: attachment.url, preview_url: attachment.url("small"),
      remote_url: nil, meta: {}, description: attachment.description, blurhash: nil }
  end
end
