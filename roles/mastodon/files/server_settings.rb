# What the server shows, as instance.yaml says: {"wanted": {item: value}, "gone": [item], "payload": {sha256: base64}} on
# standard input. Everything or nothing, with Mastodon's own forms, validations and workers. Prints what it changed.
#   mastodon-run mastodon-owner RELEASE bundle exec rails runner server_settings.rb

class Refused < StandardError; end

class ServerSettings
  # Later than our commit: a worker that comes too early finds nothing and forgets its job; one that is queued after the
  # commit is lost with a killed process.
  AFTER_COMMIT = 30

  def initialize(document)
    @wanted, @gone, @payload = document.values_at("wanted", "gone", "payload")
    @changed = []
    @unknown = []
  end

  def apply
    ActiveRecord::Base.transaction do
      settings
      each_of("role") { |name, value| role(name, value) }
      rules
      terms
      each_of("image") { |var, value| image(var, value) }
      each_of("emoji") { |shortcode, value| emoji(shortcode, value) }
      @gone.each { |item| remove(*item.split("/", 2)) }
      # Last, because they queue jobs: what is refused or slow (pictures go to the bucket) comes before.
      each_of("domain_block") { |domain, value| domain_block(domain, value) }
      each_of("announcement") { |_, value| announcement(value) }
    end
    { "changed" => @changed, "unknown" => @unknown }
  end

  private

  def each_of(kind)
    @wanted.each { |item, value| yield item.delete_prefix("#{kind}/"), value if item.start_with?("#{kind}/") }
  end

  # Whatever a record's own validation says becomes the sentence.
  def save(record, item)
    return false unless record.new_record? || record.changed?
    raise Refused, "#{item}: #{record.errors.full_messages.join('; ')}" unless record.save

    @changed << item
    true
  end

  # The form takes what a browser sends: "1", "0", "14". It writes only what it is given (and a few rows more). A key of
  # another release is left out and named.
  def settings
    given = @wanted.filter_map { |item, value| [item.delete_prefix("setting/"), value] if item.start_with?("setting/") }.to_h
    unknown = given.keys.reject { |key| Form::AdminSettings::KEYS.include?(key.to_sym) }
    @unknown.concat(unknown.map { |key| "setting/#{key}" })
    todo = given.except(*unknown).reject { |key, value| row(key)&.value == value }
    return if todo.empty?

    form = Form::AdminSettings.new(todo.transform_values { |value| { true => "1", false => "0" }.fetch(value, value.to_s) })
    raise Refused, "server: #{form.errors.full_messages.join('; ')}" unless form.save

    kept = todo.reject { |key, value| row(key)&.value == value }
    raise Refused, "Mastodon did not keep #{kept.keys.join(', ')} as given" if kept.any?

    @changed.concat(todo.keys.map { |key| "setting/#{key}" })
  end

  def row(key) = Setting.find_by(var: key)

  def role(name, value)
    found = UserRole.where(name:).where.not(id: UserRole.everyone.id).to_a
    raise Refused, "role/#{name}: the server has #{found.size} roles of this name; rename or remove all but one" if found.size > 1

    known, unknown = value["permissions"].partition { |right| UserRole::FLAGS.key?(right.to_sym) }
    @unknown.concat(unknown.map { |right| "role/#{name}: #{right}" })
    role = found.first || UserRole.new(name:)
    role.assign_attributes(permissions: known.sum { |right| UserRole::FLAGS.fetch(right.to_sym) },
                           position: value["position"], color: value["color"], highlighted: value["badge"])
    save(role, "role/#{name}")
  end

  # The whole list, in its order. A rule is known by its text.
  def rules
    return unless @wanted.key?("rules")

    kept = @wanted["rules"].each_with_index.map do |wanted, place|
      rule = Rule.kept.find_by(text: wanted["text"]) || Rule.new(text: wanted["text"])
      rule.assign_attributes(hint: wanted["hint"], priority: place)
      save(rule, "rules")
      translations(rule, wanted["translations"])
      rule.id
    end
    Rule.kept.where.not(id: kept).find_each { |rule| @changed << "rules" if rule.discard }
  end

  def translations(rule, wanted)
    wanted.each do |language, given|
      translation = RuleTranslation.find_or_initialize_by(rule_id: rule.id, language:)
      translation.assign_attributes(text: given["text"], hint: given["hint"])
      save(translation, "rules")
    end
    RuleTranslation.where(rule_id: rule.id).where.not(language: wanted.keys).find_each { |old| @changed << "rules" if old.destroy }
  end

  # Mastodon refuses a day before that of the terms in force, or before today where there are none.
  def terms
    wanted = @wanted["terms"] or return
    earliest = TermsOfService.where.not(published_at: nil).where(effective_date: ..Time.zone.today).maximum(:effective_date)
    day = [Date.parse(wanted["effective"]), earliest || Time.zone.today].max
    edition = TermsOfService.find_or_initialize_by(effective_date: day)
    edition.assign_attributes(text: wanted["text"], changelog: wanted["changelog"])
    edition.published_at ||= Time.now.utc
    save(edition, "terms")
  end

  def domain_block(domain, value)
    block = DomainBlock.find_or_initialize_by(domain:)
    known = block.persisted?
    block.assign_attributes(value)
    return unless save(block, "domain_block/#{domain}")

    DomainBlockWorker.perform_in(AFTER_COMMIT, block.id, known && block.severity_previously_changed?)
  end

  def announcement(value)
    notice = Announcement.find_or_initialize_by(text: value["text"])
    # Mastodon takes a notice away when `ends_at` has passed: the end of the last day.
    last = value["ends"] && "#{value["ends"]} 23:59:59"
    notice.assign_attributes(starts_at: value["starts"], ends_at: last, all_day: last.present?)
    notice.published = true unless notice.ends_at&.past? # somebody had taken it away
    PublishScheduledAnnouncementWorker.perform_in(AFTER_COMMIT, notice.id) if save(notice, "announcement")
  end

  # Only pictures that differ from what was made last come with their bytes.
  def image(var, value)
    upload = SiteUpload.find_or_initialize_by(var:)
    with_file(value) do |file|
      upload.file = file
      save(upload, "image/#{var}")
    end
  end

  def emoji(shortcode, value)
    emoji = CustomEmoji.find_or_initialize_by(domain: nil, shortcode:)
    emoji.disabled = false
    with_file(value) { |file| emoji.image = file }
    save(emoji, "emoji/#{shortcode}")
  end

  def with_file(value)
    bytes = @payload[value["sha256"]] or return
    Tempfile.create(["server", File.extname(value["file"])], binmode: true) do |file|
      file.write(bytes.unpack1("m"))
      file.rewind
      yield file
    end
  end

  # What we made and the file no longer has. A setting goes back to the release's default.
  # `rules` and `terms` are one item each and have no name.
  def remove(kind, name = nil)
    removed = case kind
              when "setting" then row(name)&.destroy
              when "role" then remove_role(name)
              when "rules" then Rule.kept.to_a.each(&:discard).any?
              when "terms" then TermsOfService.where.not(published_at: nil).update_all(published_at: nil).positive? # kept as drafts
              when "domain_block" then DomainBlock.find_by(domain: name)&.then { |block| UnblockDomainService.new.call(block) }
              when "announcement" then remove_announcement(name)
              when "image" then SiteUpload.find_by(var: name)&.destroy
              when "emoji" then CustomEmoji.find_by(domain: nil, shortcode: name)&.destroy
              end
    @changed << [kind, name].compact.join("/") if removed
  end

  # Mastodon would take the role away from its people without a word.
  def remove_role(name)
    UserRole.where(name:).where.not(id: UserRole.everyone.id).find_each do |role|
      people = User.where(role_id: role.id).joins(:account).limit(5).pluck("accounts.username")
      if people.any?
        raise Refused, "role/#{name}: #{people.map { |person| "@#{person}" }.join(', ')} still have it; give them another role " \
                       "(tootctl accounts modify NAME --role ROLE), or put the role back into server.roles"
      end
      role.destroy!
    end
  end

  def remove_announcement(digest)
    Announcement.where("md5(text) = ?", digest).find_each do |notice|
      notice.destroy!
      UnpublishAnnouncementWorker.perform_in(AFTER_COMMIT, notice.id)
    end
  end
end

begin
  puts JSON.generate(ServerSettings.new(JSON.parse($stdin.read)).apply)
rescue StandardError => error
  warn(error.is_a?(Refused) ? error.message : "#{error.class}: #{error.message}")
  exit 1
end
