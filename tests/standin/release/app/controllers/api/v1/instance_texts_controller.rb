# Rules, texts and lists of the instance, one address each, as upstream answers them. Everybody may read them.
class Api::V1::InstanceTextsController < Api::BaseController
  before_action -> { require_user("read") }, only: :announcements

  def rules = render(json: Rule.kept.order(:priority, :id).map { |rule| StatusJson.rule(rule) })

  # Trap: the text goes through `format`, which fills in %{domain} and fails at a lone per cent sign.
  def privacy_policy
    row = Setting.find_by(var: "site_terms")
    render json: { updated_at: row&.updated_at&.iso8601, content: formatted(row&.value) }
  end

  def terms_of_service
    terms = TermsOfService.current || raise(ActiveRecord::RecordNotFound)
    render json: { effective_date: terms.effective_date.iso8601, effective: terms.effective_date.past?, content: formatted(terms.text) }
  end

  def extended_description = render(json: { content: Setting.site_extended_description })

  def domain_blocks
    return head(:not_found) unless Setting.show_domain_blocks == "all"

    blocks = DomainBlock.where(severity: %i[silence suspend]).order(:domain)
    render json: blocks.map { |block| { domain: block.domain, severity: block.severity, comment: (block.public_comment if Setting.show_domain_blocks_rationale == "all") } }
  end

  def custom_emojis
    render json: CustomEmoji.where(domain: nil, disabled: false).order(:shortcode).map { |emoji| { shortcode: emoji.shortcode, url: emoji.url, static_url: emoji.url, visible_in_picker: true } }
  end

  def announcements
    shown = Announcement.published.where("ends_at IS NULL OR ends_at > ?", Time.now.utc).order(:id)
    render json: shown.map { |notice| { id: notice.id.to_s, content: "<p>#{ERB::Util.html_escape(notice.text)}</p>", all_day: notice.all_day } }
  end

  private

  def formatted(text) = format(text.to_s, domain: Mastodon::Environment.local_domain)
end
