# What anybody can read.
class PagesController < ApplicationController
  before_action :cacheable, except: %i[health guarded]
  skip_forgery_protection

  def health = render(plain: "OK")

  def show
    @title = params[:page].to_s.tr("-", " ").capitalize.presence || Setting.site_title
    @text = { "about" => Setting.site_extended_description, "privacy-policy" => formatted(Setting.site_terms),
              "terms-of-service" => formatted(TermsOfService.current&.text) }.fetch(params[:page].to_s, Setting.site_short_description)
    @rules = Rule.kept.order(:priority) if params[:page] == "about"
  end

  def manifest
    render json: { name: Setting.site_title, short_name: Setting.site_title, start_url: "/", display: "standalone", standin: true }
  end

  # Signed in with the right to see them, both are a plain page: no dashboard is built into the stand-in.
  def guarded
    require_right(:view_devops)
    refuse(200, "The stand-in has no dashboard") unless performed?
  end

  # The account that signs for the server itself.
  def actor
    instance_actor = Account.find(Account::INSTANCE_ACTOR_ID)
    render json: { "@context" => "https://www.w3.org/ns/activitystreams", id: url_for(only_path: false), type: "Application",
                   preferredUsername: local_domain, publicKey: { id: "#{url_for(only_path: false)}#main-key", publicKeyPem: instance_actor.public_key } }
  end

  private

  # As upstream: %{domain} is filled in, and a lone per cent sign is an error.
  def formatted(text) = format(text.to_s, domain: local_domain)
end
