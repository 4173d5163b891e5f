# One page for all settings. Each address (…/registrations, …/about) takes any of them, as one form.
class Admin::SettingsController < ApplicationController
  before_action -> { require_right(:manage_settings) }
  before_action :private_answer

  def show
    @form = Form::AdminSettings.new
  end

  def update
    @form = Form::AdminSettings.new(params.require(:form_admin_settings).permit(*Form::AdminSettings::KEYS).to_h)
    return render(:show, status: :unprocessable_entity) unless @form.save

    redirect_to admin_settings_path(params[:section])
  end
end
